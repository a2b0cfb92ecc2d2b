#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <vector>

namespace sut {

// Chooses a replica for a sample: the one with room whose load is the smallest share of its credit;
// among equals the next in turn, so that a light load reaches every replica. O(log replicas).
class ReplicaChoice {
 public:
  explicit ReplicaChoice(std::size_t num_replicas) : places_(num_replicas, order_.end()) {}
  ReplicaChoice(const ReplicaChoice&) = delete;
  ReplicaChoice& operator=(const ReplicaChoice&) = delete;

  // The load and the credit of a replica, in samples. It has room while load < credit.
  void set(std::size_t replica, std::size_t load, std::size_t credit) {
    credit = std::min(credit, kMaxCredit);
    auto& place = places_[replica];
    if (place != order_.end()) order_.erase(place);
    place = load < credit ? order_.insert({load, credit, replica}).first : order_.end();
  }

  // The replica for the next sample; none if no replica has room. The caller then reports its load.
  std::optional<std::size_t> next() {
    if (order_.empty()) return std::nullopt;
    const Entry least = *order_.begin();
    auto chosen = order_.lower_bound({least.load, least.credit, next_});
    if (chosen == order_.end() || chosen->is_less_loaded(least) || least.is_less_loaded(*chosen))
      chosen = order_.begin();
    next_ = chosen->replica + 1;
    return chosen->replica;
  }

 private:
  static constexpr std::size_t kMaxCredit = UINT32_MAX;  // products of two fit

  struct Entry {
    std::size_t load, credit, replica;

    bool is_less_loaded(const Entry& other) const {
      return load * other.credit < other.load * credit;
    }
    bool operator<(const Entry& other) const {
      if (is_less_loaded(other)) return true;
      return !other.is_less_loaded(*this) && replica < other.replica;
    }
  };

  std::set<Entry> order_;
  std::vector<std::set<Entry>::iterator> places_;  // end() for a replica without room
  std::size_t next_ = 0;                           // whose turn it is among equals
};

}  // namespace sut
