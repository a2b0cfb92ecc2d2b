#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

namespace sut {

// Values appended by one thread and read by any thread at any time, without a lock: a reader
// never makes the writer wait.
//
// Correctness: the writer stores an element, and before it the element's chunk, before it releases
// the new size; a reader acquires the size and reads only elements below it, which are never
// written again. clear() breaks this, so it must not run concurrently with any other member.
template <typename T>
class AppendLog {
 public:
  // Writer only. Allocates once per 2^12 values; drops every value after 2^28.
  void append(const T& value) {
    const std::size_t size = size_.load(std::memory_order_relaxed);
    const std::size_t chunk = size / kChunk;
    if (chunk == kMaxChunks) return;
    if (!chunks_[chunk]) chunks_[chunk] = std::make_unique_for_overwrite<Chunk>();
    (*chunks_[chunk])[size % kChunk] = value;
    size_.store(size + 1, std::memory_order_release);
  }

  std::size_t size() const { return size_.load(std::memory_order_acquire); }

  // Calls `visit` with the first `count` values in order. Requires `count` <= size().
  template <typename Visit>
  void for_each(std::size_t count, Visit visit) const {
    for (std::size_t i = 0; i < count; ++i) visit((*chunks_[i / kChunk])[i % kChunk]);
  }

  void clear() { size_.store(0, std::memory_order_release); }

 private:
  static constexpr std::size_t kChunk = std::size_t{1} << 12;
  static constexpr std::size_t kMaxChunks = std::size_t{1} << 16;
  using Chunk = std::array<T, kChunk>;

  std::atomic<std::size_t> size_{0};
  std::vector<std::unique_ptr<Chunk>> chunks_{kMaxChunks};
};

}  // namespace sut
