// A store-load fence of which one side pays nothing and the other one all of
// it, for a flag that is asked for each time and set rarely.
//
//   the frequent side                  the rare side
//   data.store(x, release);            flag.store(1, relaxed);
//   LightFence();                      HeavyFence();
//   if (flag.load(relaxed)) ...        if (data.load(acquire) ...) ...
//
// At least one of them sees what the other one has stored (Dekker), as with two
// seq_cst fences. LightFence only keeps the compiler from reordering;
// HeavyFence makes the kernel execute a fence on every CPU that runs a thread
// of a process that has called EnableLightFence. See
// MEMBARRIER_CMD_GLOBAL_EXPEDITED in membarrier(2); folly's
// AsymmetricThreadFence does the same within a process.
//
// Where the kernel refuses, HeavyFence is an ordinary fence, and a store of the
// frequent side may be seen some nanoseconds after its load: so whoever sleeps
// on what it saw has to look again after a while.
#ifndef IPC_BASE_ASYMMETRIC_FENCE_H_
#define IPC_BASE_ASYMMETRIC_FENCE_H_

#include <atomic>

namespace ipc {

// To be called before the first LightFence of this process, once or more often.
// A forked child inherits it.
void EnableLightFence();

inline void LightFence() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

// Takes a microsecond or so.
void HeavyFence();

}  // namespace ipc

#endif  // IPC_BASE_ASYMMETRIC_FENCE_H_
