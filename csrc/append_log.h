#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace sut {

// Latencies in nanoseconds, appended by one thread and copied by any other at any time, without
// a lock: a reader never makes the writer wait.
//
// Why it is right: the writer stores an element (and, before it, the chunk that holds it) before
// it releases the new size; a reader acquires the size and touches only elements below it, which
// are never written again. clear() breaks that, so it may run only while nobody appends or copies.
class AppendLog {
 public:
  // Writer only. Drops what comes after 2^28 values (2 GiB).
  void append(std::int64_t value) {
    const std::size_t size = size_.load(std::memory_order_relaxed);
    const std::size_t chunk = size / kChunk;
    if (chunk == kMaxChunks) return;
    if (!chunks_[chunk]) chunks_[chunk] = std::make_unique<Chunk>();
    (*chunks_[chunk])[size % kChunk] = value;
    size_.store(size + 1, std::memory_order_release);
  }

  std::vector<std::int64_t> copy() const {
    const std::size_t size = size_.load(std::memory_order_acquire);
    std::vector<std::int64_t> values;
    values.reserve(size);
    for (std::size_t begin = 0; begin < size; begin += kChunk) {
      const Chunk& chunk = *chunks_[begin / kChunk];
      const std::size_t count = size - begin < kChunk ? size - begin : kChunk;
      values.insert(values.end(), chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(count));
    }
    return values;
  }

  void clear() { size_.store(0, std::memory_order_release); }

 private:
  static constexpr std::size_t kChunk = std::size_t{1} << 16;
  static constexpr std::size_t kMaxChunks = std::size_t{1} << 12;
  using Chunk = std::array<std::int64_t, kChunk>;

  std::atomic<std::size_t> size_{0};
  std::vector<std::unique_ptr<Chunk>> chunks_{kMaxChunks};
};

}  // namespace sut
