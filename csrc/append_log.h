#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

namespace sut {

// Values appended by one thread and read by any other at any time, without a lock: a reader
// never makes the writer wait.
//
// Why it is right: the writer stores an element (and, before it, the chunk that holds it) before
// it releases the new size; a reader acquires the size and touches only elements below it, which
// are never written again. clear() breaks that, so it may run only while nobody appends or reads.
template <typename T>
class AppendLog {
 public:
  // Writer only. Allocates once in 2^12 values; drops what comes after 2^28.
  void append(const T& value) {
    const std::size_t size = size_.load(std::memory_order_relaxed);
    const std::size_t chunk = size / kChunk;
    if (chunk == kMaxChunks) return;
    if (!chunks_[chunk]) chunks_[chunk] = std::make_unique_for_overwrite<Chunk>();
    (*chunks_[chunk])[size % kChunk] = value;
    size_.store(size + 1, std::memory_order_release);
  }

  std::size_t size() const { return size_.load(std::memory_order_acquire); }

  // Calls `visit` with the first `count` values in order; `count` is at most what size() gave.
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
