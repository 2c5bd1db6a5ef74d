// A version in shared memory that only grows, and a way to sleep until it does.
//
//    0  u64 version   of what it guards; 0 at first
//    8  u32 event     on which sleepers wait; bumped before each wake-up
//   12  u32 waiting   1 if somebody may sleep: a flag and not a counter, which
//                     would leak when a sleeper is killed
//
// The sleeper: load event, set waiting, check the version again, sleep on
// event. The waker: publish the version; only if waiting is set: clear it, bump
// event, wake all. The four accesses to version and waiting are seq_cst, so at
// least one side sees the other (Dekker); a waker that clears the flag of a
// sleeper that came late changes the event it sleeps on, so that it looks
// again.
//
// Parks end after kPark at the latest. A waker that was killed between publish
// and wake, and a sleeper that cannot set the flag because it maps the memory
// for reading only, cost no more than that.
#ifndef IPC_SHM_VERSION_SIGNAL_H_
#define IPC_SHM_VERSION_SIGNAL_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "ipc/base/deadline.h"

namespace ipc::shm::internal {

struct VersionSignal {
  static constexpr absl::Duration kPark = absl::Milliseconds(20);

  std::atomic<uint64_t> version;
  std::atomic<uint32_t> event;
  std::atomic<uint32_t> waiting;

  // Sets the version, one more than before, and wakes. REQUIRES: the caller is
  // the only one to change it.
  void Publish(uint64_t next);
  // Adds one and wakes; any number of callers at a time.
  void Bump();

  // Adds one and wakes, if the version is `seen`.
  void Advance(uint64_t seen);

  // Waits until the version is not `seen`, the deadline or kPark passes.
  // Returns whether it is not `seen`.
  bool Park(uint64_t seen, Deadline deadline, bool writable);

 private:
  void WakeIfWaiting();
};
static_assert(sizeof(VersionSignal) == 16);

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_VERSION_SIGNAL_H_
