#pragma once

#include <cstdint>
#include <vector>

#include "response_sink.h"
#include "wire.h"

namespace sut {

// Every sample in flight at a replica, in reused slots: a token event finds its slot by index and
// appends to memory reserved in advance. Used by one thread.
class InFlightTable {
 public:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  struct Slot {
    std::uint32_t use = 0;  // first_use for its first sample, and one more for each later one
    bool taken = false;
    bool pinned = false;  // no other replica may have it
    std::uint32_t replica = 0;
    std::uint32_t older = kNone;  // the slots taken before and after this one, of those in flight
    std::uint32_t newer = kNone;
    Sample sample{};
    ResponseSink* sink = nullptr;
    std::int64_t issued_ns = 0;
    std::int64_t admitted_ns = 0;  // to the first replica that had it
    std::int64_t sent_ns = 0;      // to this replica
    std::int64_t first_token_ns = 0;  // 0: none so far
    std::int64_t first_reported_ns = 0;  // after the sink's call
    bool ttft_over = false;              // counted in Stats
    bool tpot_over = false;
    std::vector<std::int32_t> tokens;
  };

  InFlightTable(std::size_t max_output_tokens, std::uint32_t first_use)
      : max_output_tokens_(max_output_tokens), first_use_(first_use) {}

  // A free slot under a new id.
  RequestId take() {
    if (free_.empty()) {
      free_.push_back(static_cast<std::uint32_t>(slots_.size()));
      slots_.emplace_back().use = first_use_ - 1;
      slots_.back().tokens.reserve(max_output_tokens_);
    }
    const std::uint32_t index = free_.back();
    free_.pop_back();
    Slot& slot = slots_[index];
    slot.taken = true;
    ++slot.use;
    slot.first_token_ns = slot.first_reported_ns = 0;
    slot.ttft_over = slot.tpot_over = false;
    slot.tokens.clear();
    slot.older = newest_;
    slot.newer = kNone;
    (newest_ == kNone ? oldest_ : slots_[newest_].newer) = index;
    newest_ = index;
    return {index, slot.use};
  }

  // The slot of `id`, or null if it is not in flight.
  Slot* find(RequestId id) {
    if (id.slot >= slots_.size()) return nullptr;
    Slot& slot = slots_[id.slot];
    return slot.taken && slot.use == id.use ? &slot : nullptr;
  }

  void release(RequestId id) {
    Slot& slot = slots_[id.slot];
    slot.taken = false;
    (slot.older == kNone ? oldest_ : slots_[slot.older].newer) = slot.newer;
    (slot.newer == kNone ? newest_ : slots_[slot.newer].older) = slot.older;
    free_.push_back(id.slot);
  }

  // The slot that was taken first among those in flight, or null.
  const Slot* oldest() const { return oldest_ == kNone ? nullptr : &slots_[oldest_]; }

  RequestId id_of(const Slot& slot) const {
    return {static_cast<std::uint32_t>(&slot - slots_.data()), slot.use};
  }

  // The slots in flight at a replica, in the order in which they were taken. Valid until take().
  std::vector<const Slot*> at_replica(std::uint32_t replica) const {
    std::vector<const Slot*> found;
    for (std::uint32_t i = oldest_; i != kNone; i = slots_[i].newer)
      if (slots_[i].replica == replica) found.push_back(&slots_[i]);
    return found;
  }

  // Calls `visit` with every slot in flight.
  template <typename Visit>
  void for_each(Visit visit) {
    for (Slot& slot : slots_)
      if (slot.taken) visit(slot);
  }

  std::size_t size() const { return slots_.size() - free_.size(); }
  std::size_t max_output_tokens() const { return max_output_tokens_; }

 private:
  std::size_t max_output_tokens_;
  std::uint32_t first_use_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::uint32_t oldest_ = kNone;
  std::uint32_t newest_ = kNone;
};

}  // namespace sut
