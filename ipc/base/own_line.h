// Makes a cache line whose contents were read this process's own, by writing to
// it without changing it, for the sake of the peer that will write to it next.
// A peer whose line we have only read still has it, but shared, and waits for
// it to be its own again; a line that we have written to comes to it whole, and
// ahead of time. Measured by tools/bench/line_bench.cc.
#ifndef IPC_BASE_OWN_LINE_H_
#define IPC_BASE_OWN_LINE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ipc {

// `word` is any aligned one of the line.
inline void OwnLine(std::byte* word) {
  const std::atomic_ref<uint64_t> ref(*reinterpret_cast<uint64_t*>(word));
  // Relaxed: it changes nothing, whoever owns the line now.
  uint64_t same = ref.load(std::memory_order_relaxed);
  ref.compare_exchange_strong(same, same, std::memory_order_relaxed);
}

}  // namespace ipc

#endif  // IPC_BASE_OWN_LINE_H_
