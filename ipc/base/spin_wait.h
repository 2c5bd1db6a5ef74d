// How long to poll shared memory before going to sleep.
//
//   for (SpinWait spin(&history, peer_cpu); spin.Next();) {
//     if (done()) return spin.Succeeded();
//   }
//   Sleep();
//
// Waking a sleeping thread takes tens of microseconds on a virtual machine, and
// a cache line from another core a tenth of one. So a waiter polls for about as
// long as a wake-up takes; less where that has been in vain lately; not at all
// on the CPU where the peer was seen last, which it would keep from it.
#ifndef IPC_BASE_SPIN_WAIT_H_
#define IPC_BASE_SPIN_WAIT_H_

#include <atomic>
#include <cstdint>

namespace ipc {

// What earlier waits on the same thing have taught. Thread-safe; private to a
// process.
class SpinHistory {
 public:
  // Reads the affinity mask once.
  SpinHistory();

 private:
  friend class SpinWait;

  const bool one_cpu_;
  // Relaxed throughout: a guess that orders nothing.
  std::atomic<int32_t> budget_ns_;
};

// One wait. Not thread-safe.
class SpinWait {
 public:
  // `peer_cpu` is the CPU on which whoever we wait for was seen last, or
  // negative: then we spin unless we may use but one.
  SpinWait(SpinHistory* history, int peer_cpu);

  // Pauses briefly, a little longer each time so as to leave the cache line to
  // its writer; false if it is time to sleep.
  bool Next();
  // What was waited for came while spinning.
  void Succeeded();

 private:
  SpinHistory* const history_;
  const bool enabled_;
  int64_t deadline_ns_ = 0;  // of CLOCK_MONOTONIC; 0 before the first Next
  int pauses_ = 1;
};

}  // namespace ipc

#endif  // IPC_BASE_SPIN_WAIT_H_
