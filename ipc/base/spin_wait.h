// How long to poll shared memory before going to sleep.
//
//   for (SpinWait spin(&history, peer_cpu); spin.Next();) {
//     if (done()) return spin.Succeeded();
//   }
//   Sleep();
//
// Waking a sleeping thread takes tens of microseconds on a virtual machine, and
// a cache line from another core a tenth of one. So a waiter polls for about as
// long as a wake-up takes, which at most doubles the cost of the wait; less
// where that has been in vain lately; not at all on the CPU where the peer was
// seen last, which it would keep from it.
//
// Two that answer each other may both wait in vain for no other reason than
// that the other one has to be woken. So that they get out of this, one wait in
// a few lasts for the whole time, whatever was before.
#ifndef IPC_BASE_SPIN_WAIT_H_
#define IPC_BASE_SPIN_WAIT_H_

#include <atomic>
#include <cstdint>

namespace ipc {

// Tells the processor that this is a loop that polls memory.
inline void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

inline void Pause(int times) {
  for (int i = 0; i < times; ++i) Pause();
}

// Of a receiver that has caught up with a stream: half a microsecond or so, in
// which its sender has the lines for itself.
inline void PauseForStream() { Pause(16); }

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
  std::atomic<uint32_t> failures_{0};  // since the last success
};

// One wait. Not thread-safe.
class SpinWait {
 public:
  // Of what is waited for: one thing, as soon as it is there; or a stream, of
  // which the next thing is best taken when some more are on their way.
  enum class Expect { kOne, kMore };

  // `peer_cpu` is the CPU on which whoever we wait for was seen last, or
  // negative: then we spin unless we may use but one.
  SpinWait(SpinHistory* history, int peer_cpu, Expect expect = Expect::kOne);

  // Pauses briefly, so as to leave the cache line to its writer for a while;
  // false if it is time to sleep.
  bool Next();
  // For the first two microseconds or so.
  bool has_just_begun() const { return rounds_ < kQuickRounds; }
  // What was waited for came while spinning.
  void Succeeded();

 private:
  // Something that is just being done is done within so many rounds.
  static constexpr uint32_t kQuickRounds = 64;

  void Failed();

  SpinHistory* const history_;
  const bool enabled_;
  const Expect expect_;
  int64_t deadline_ns_ = 0;  // of CLOCK_MONOTONIC; 0 before it was looked at
  uint32_t rounds_ = 0;
};

}  // namespace ipc

#endif  // IPC_BASE_SPIN_WAIT_H_
