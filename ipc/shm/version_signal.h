// A word in shared memory, and a way to sleep until it changes.
//
//    0  u64 word      what is watched: a version, or a value itself
//    8  u32 event     on which sleepers wait; bumped before each wake-up
//   12  u32 waiting   1 if somebody may sleep: a flag and not a counter, which
//                     would leak when a sleeper is killed
//
// The sleeper: load event, set waiting, check the word again, sleep on event.
// The waker: change the word; only if waiting is set: clear it, bump event,
// wake all. At least one of them sees the other, by a fence between store and
// load on both sides, for which the sleeper alone pays
// (ipc/base/asymmetric_fence.h): it is about to sleep anyway. A waker that
// clears the flag of a sleeper that came late changes the event it sleeps on,
// so that it looks again.
//
// Parks end after kPark at the latest. A waker that was killed between change
// and wake, and a sleeper that cannot set the flag because it maps the memory
// for reading only, cost no more than that.
//
// Whoever is to change the word first calls EnableLightFence.
#ifndef IPC_SHM_VERSION_SIGNAL_H_
#define IPC_SHM_VERSION_SIGNAL_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "ipc/base/asymmetric_fence.h"
#include "ipc/base/deadline.h"

namespace ipc::shm::internal {

struct VersionSignal {
  static constexpr absl::Duration kPark = absl::Milliseconds(20);

  std::atomic<uint64_t> word;
  std::atomic<uint32_t> event;
  std::atomic<uint32_t> waiting;

  // Sets the word and wakes.
  void Publish(uint64_t next) {
    // Release pairs with the acquire of whoever loads the word.
    word.store(next, std::memory_order_release);
    WakeIfWaiting();
  }

  // Sets the word and wakes if it is *seen; if not, loads it to *seen and
  // returns false.
  bool Exchange(uint64_t* seen, uint64_t next) {
    // As in Publish; acquire, for what is computed from it.
    if (!word.compare_exchange_strong(*seen, next, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      return false;
    }
    WakeIfWaiting();
    return true;
  }

  // Waits until the word is not `seen`, the deadline or kPark passes. Returns
  // whether it is not `seen`.
  bool Park(uint64_t seen, Deadline deadline, bool writable);

 private:
  void WakeIfWaiting() {
    LightFence();
    // Relaxed: see above.
    if (waiting.load(std::memory_order_relaxed) != 0) [[unlikely]]
      Wake();
  }
  void Wake();
};
static_assert(sizeof(VersionSignal) == 16);

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_VERSION_SIGNAL_H_
