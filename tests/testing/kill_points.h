// Kills a process after each machine instruction of an operation, one after the
// other, and asks the survivors each time.
//
//   class SendCase : public KillPointCase {
//     void Prepare() override { ... }       // in the victim: attach
//     void Operate() override { queue_.Send("message"); }
//     void Check() override { EXPECT_TRUE(queue_.Send("after").ok()); ... }
//     Queue queue_ = ...;
//   };
//   KillPointReport report = KillAtEveryInstruction(
//       [] { return std::make_unique<SendCase>(); });
//
// For k = 0, 1, 2, ... a new case is made and a child forked, which runs
// Prepare and then, step by step under ptrace(2), the first k instructions of
// Operate; then it is killed by SIGKILL and reaped, and Check runs in the
// parent. It ends with the k at which Operate ran to its end.
//
// An operation that falls asleep in a system call is killed there, too, once;
// then Wake is called, in the parent, at that point, and the rest of the
// operation is cut up like the beginning. Without a Wake the sleep is the end.
//
// A look at the clock counts as one instruction, since the way through the
// kernel's page for it (vdso(7)) depends on the time.
//
// The operation has to take the same way each time, for the victim leaps to its
// last instruction by a breakpoint that is learnt from the runs before; one
// that misses it is checked, too, and then the point is tried again by a way
// that is learnt anew.
// Driver and victim share one CPU, as a switch between two takes longer; so
// nobody spins. What the operation allocates is where it was the last time: see
// repeatable_heap.h.
//
// A thread that the operation starts is stepped through as well: it begins when
// its starter falls asleep, which is to be in a call that begins again after a
// signal, such as pthread_join's, and ends before that goes on. One at a time.
// Those that Prepare starts run as they like.
//
// x86-64 only. Not under sanitizers or valgrind, whose own instructions would
// be most of it. Not thread-safe.
#ifndef TESTS_TESTING_KILL_POINTS_H_
#define TESTS_TESTING_KILL_POINTS_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>

namespace ipc::testing {

// Where the victim was killed.
struct KillPoint {
  int instructions = 0;    // of the operation that it had executed
  bool asleep = false;     // in a system call that had not returned
  bool woken = false;      // after Wake
  bool completed = false;  // the operation had run to its end
  bool astray = false;     // on another way than the runs before, somewhere
  uint64_t address = 0;    // of the next instruction

  // "after 17 instructions, at Function+0x12 (library)"
  std::string ToString() const;
};

class KillPointCase {
 public:
  virtual ~KillPointCase() = default;
  // In the victim, before the first instruction that counts.
  virtual void Prepare() {}
  virtual void Operate() = 0;
  // In the parent, while the victim sleeps in Operate: true if it wakes it.
  virtual bool Wake() { return false; }
  // In the parent, after the victim was killed.
  virtual void Check(const KillPoint& point) = 0;
  // After Check: true if what it saw may be chance, and the same point is to be
  // tried again, by a new case.
  virtual bool IsInDoubt() const { return false; }
};

struct KillPointReport {
  int points = 0;     // kills before the operation's end
  int asleep = 0;     // of them, in a system call
  int astray = 0;     // victims that missed their point
  int completed = 0;  // 1 if the operation was seen to end; else it slept
};

// Instructions that are of less interest than their number would have it. The
// first two or three cases then run to the end, to find out what is where, and
// so does one after each that missed its point.
struct Coarse {
  // Those of a library, and of what it calls: one that computes and does
  // nothing that others see. A part of its file's name; none if empty.
  std::string library = {};
  // Those that were executed so often already, as in a long loop.
  int passes = std::numeric_limits<int>::max();
  // One of so many of them is a point.
  int stride = 1;
};

// Every `stride`th instruction. Stops early when gtest knows of a failure.
KillPointReport KillAtEveryInstruction(
    const std::function<std::unique_ptr<KillPointCase>()>& make_case,
    int stride = 1, const Coarse& coarse = {});

}  // namespace ipc::testing

#endif  // TESTS_TESTING_KILL_POINTS_H_
