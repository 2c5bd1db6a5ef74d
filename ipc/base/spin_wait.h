// How long to poll shared memory before going to sleep.
//
//   for (SpinWait spin(&history); !done(); ) {
//     if (!spin.Next()) return Sleep();
//   }
//   spin.Succeeded();
//
// Waking a sleeping thread takes tens of microseconds on a virtual machine, and
// a cache line from another core a tenth of one. So a waiter polls for about as
// long as a wake-up takes; less where that has been in vain lately; not at all
// where there is one CPU, which it would keep from whoever it waits for.
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

  // Relaxed throughout: a guess that orders nothing.
  std::atomic<int32_t> budget_ns_;
};

// One wait. Not thread-safe.
class SpinWait {
 public:
  explicit SpinWait(SpinHistory* history) : history_(history) {}

  // Pauses briefly, a little longer each time so as to leave the cache line to
  // its writer; false if it is time to sleep.
  bool Next();
  // What was waited for came while spinning.
  void Succeeded();

 private:
  SpinHistory* const history_;
  int64_t deadline_ns_ = 0;  // of CLOCK_MONOTONIC; 0 before the first Next
  int pauses_ = 1;
};

}  // namespace ipc

#endif  // IPC_BASE_SPIN_WAIT_H_
