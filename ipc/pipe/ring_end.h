// One of the two ends of a ring, as far as both are alike: who has it, who has
// the other one, and how it sleeps and is woken.
//
// Who has it holds an OFD write lock (F_OFD_SETLK in fcntl(2)) on the byte of
// this end (ParticipantTable::kLockOffset + 0 for the sender, + 1 for the
// receiver), by an open file description of its own, which the kernel drops
// when the process has died; see ipc/base/participants.h. The state of the end:
//
//   NONE(e)      -> ATTACHED(e+1)   by whoever has got the lock
//   ATTACHED(e)  -> ATTACHED(e+1)   the same, after the one before has died
//   ATTACHED(e)  -> NONE(e)         by its owner, which then unlocks: it leaves
//   ATTACHED(e)  -> CLOSED(e)       the same, for good
//
// Invariants:
// 1. The lock is taken before ATTACHED is written and dropped after that has
//    been taken back. So ATTACHED, no lock, and the same word still: dead.
// 2. Only the holder of the lock writes the words of its end.
//
// Sleeping: the sleeper loads event, sets waiting, has a fence executed by all,
// looks once more and sleeps on event. The waker stores what is waited for;
// only if waiting is set, it clears it, raises event and wakes. At least one of
// them sees the other: a store and then a load on both sides, between which the
// waker has a LightFence and the sleeper a HeavyFence. Every sleep ends after
// kTick: the death of a waker between its store and its wake-up costs no more.
//
// Thread safety: none; one thread at a time. A fork may happen meanwhile.
#ifndef IPC_PIPE_RING_END_H_
#define IPC_PIPE_RING_END_H_

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ipc/base/asymmetric_fence.h"
#include "ipc/base/current_cpu.h"
#include "ipc/base/deadline.h"
#include "ipc/base/futex.h"
#include "ipc/base/spin_wait.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/ring_layout.h"
#include "ipc/pipe/ring_memory.h"

namespace ipc::pipe {
class RingTestPeer;
}  // namespace ipc::pipe

namespace ipc::pipe::internal {

class RingEnd {
 public:
  enum class Side : uint32_t { kSender = 0, kReceiver = 1 };
  static constexpr absl::Duration kTick = absl::Milliseconds(10);

  RingEnd(const RingEnd&) = delete;
  RingEnd& operator=(const RingEnd&) = delete;

  int fd() const { return fd_.get(); }

 protected:
  // What this end may do. Anything but kOpen leads off the fast path.
  enum class Mode : uint8_t {
    kOpen,
    kReserved,    // the sender's one reservation is out
    kPeerClosed,  // of the sender: nobody will ever receive
    kClosed,      // it has been given up
    kForked,      // in a child: it is the parent's
  };
  // What a look at the other one's position has shown.
  enum class Seen { kNothing, kReady, kDamaged };
  enum class Peer { kFine, kClosed, kDead };

  explicit RingEnd(Side side) : side_(side) {}
  ~RingEnd();  // unlocks; a holder that has not called GiveUp looks dead

  // Maps the segment and takes the lock. FailedPrecondition if another one has
  // it, or this end is closed. The positions may then be read, and not change.
  absl::Status Open(UniqueFd fd);
  // Says that this end is attached.
  void Announce();
  // Writes `state`, wakes the other end, unlocks.
  void GiveUp(EndState state);
  bool IsHeld() const { return mode_ < Mode::kClosed; }

  // Waits until look(thorough) is not kNothing, at most for `timeout`. It is
  // thorough when it counts, and is not when it is one of many.
  template <typename Look>
  absl::Status Await(absl::Duration timeout, Look look);

  // Wakes the other end.
  void Wake(RingBell& bell) {
    // Acquire pairs with the release in GiveUp, for who asks for the state now.
    bell.waiting.exchange(0, std::memory_order_acq_rel);
    bell.event.fetch_add(1);
    FutexWake(bell.event, 1);
    NoteCpu();
  }
  bool IsPeerClosed() const {
    // Acquire pairs with the release in GiveUp: what was done before is seen.
    return StateOf(peer().state.load(std::memory_order_acquire)) ==
           EndState::kClosed;
  }

  // "sending to ring, fd 5"
  std::string Name() const;
  // Of the mode, if that is not kOpen.
  absl::Status ModeError() const;
  absl::Status Damaged() const;

  RingHeader& header() const { return memory_.header(); }

  RingMemory memory_;
  absl::Duration tick_ = kTick;  // of a sleep
  Mode mode_ = Mode::kClosed;
  uint64_t wanted_ = 0;  // the RingBell's, should it come to that

 private:
  friend class RingEndRegistry;
  friend class ipc::pipe::RingTestPeer;

  static EndState StateOf(uint64_t state) {
    return static_cast<EndState>(static_cast<uint32_t>(state));
  }
  RingEndWords& mine() const {
    return side_ == Side::kSender ? header().sender : header().receiver;
  }
  RingEndWords& peer() const {
    return side_ == Side::kSender ? header().receiver : header().sender;
  }
  RingBell& my_bell() const {
    return side_ == Side::kSender ? header().sender_bell
                                  : header().receiver_bell;
  }
  RingBell& peer_bell() const {
    return side_ == Side::kSender ? header().receiver_bell
                                  : header().sender_bell;
  }

  // Relaxed, both: guesses.
  void NoteCpu() {
    const uint32_t cpu = static_cast<uint32_t>(CurrentCpu()) + 1;
    if (mine().cpu.load(std::memory_order_relaxed) != cpu) {
      mine().cpu.store(cpu, std::memory_order_relaxed);
    }
  }
  int PeerCpu() const {
    return static_cast<int>(peer().cpu.load(std::memory_order_relaxed) - 1);
  }

  template <typename Look>
  Seen Spin(Look look);
  template <typename Look>
  absl::Status Park(absl::Duration timeout, Deadline deadline, Look look);

  // Asks the kernel whether the other one lives, once in a kTick.
  Peer LookAtPeer();
  absl::Status PeerGone(Peer peer) const;
  absl::Status TimedOut(absl::Duration timeout) const;
  absl::Status ToStatus(Seen seen) const {
    return seen == Seen::kReady ? absl::OkStatus() : Damaged();
  }

  const Side side_;
  UniqueFd fd_;
  int lock_fd_ = -1;  // whose description holds the lock
  int64_t last_probe_ms_ = 0;
  SpinHistory spin_history_;

  // The list of all ends of this process, under the registry's lock.
  RingEnd* previous_ = nullptr;
  RingEnd* next_ = nullptr;
};

template <typename Look>
absl::Status RingEnd::Await(absl::Duration timeout, Look look) {
  const bool may_wait = timeout > absl::ZeroDuration();
  Seen seen = look(/*thorough=*/!may_wait);
  if (seen != Seen::kNothing) return ToStatus(seen);
  const Deadline deadline = Deadline::After(timeout);
  if (may_wait) {
    seen = Spin(look);
    if (seen != Seen::kNothing) return ToStatus(seen);
  }
  return Park(timeout, deadline, look);
}

template <typename Look>
RingEnd::Seen RingEnd::Spin(Look look) {
  // An answer that is on its way takes less than a microsecond, for which the
  // price of each look counts.
  constexpr int kQuickLooks = 64;
  // On one CPU, what the other one does is done while we yield.
  constexpr int kYields = 2;
  NoteCpu();
  const int peer_cpu = PeerCpu();
  if (peer_cpu == CurrentCpu()) {
    for (int i = 0; i < kYields; ++i) {
      sched_yield();
      if (const Seen seen = look(false); seen != Seen::kNothing) return seen;
    }
    return Seen::kNothing;
  }
  for (int i = 0; i < kQuickLooks; ++i) {
    Pause();
    if (const Seen seen = look(false); seen != Seen::kNothing) return seen;
  }
  for (SpinWait spin(&spin_history_, peer_cpu); spin.Next();) {
    if (const Seen seen = look(false); seen != Seen::kNothing) {
      spin.Succeeded();
      return seen;
    }
  }
  return Seen::kNothing;
}

template <typename Look>
absl::Status RingEnd::Park(absl::Duration timeout, Deadline deadline,
                           Look look) {
  const bool may_wait = timeout > absl::ZeroDuration();
  RingBell& bell = my_bell();
  // Relaxed: nobody else sets it, and a stale 1 costs the other one a call.
  const auto retract = [&] {
    if (may_wait) bell.waiting.store(0, std::memory_order_relaxed);
  };
  while (true) {
    // The kernel compares it again: a wake-up after this load ends the sleep.
    const uint32_t ticket = bell.event.load();
    if (may_wait) {
      // Relaxed: what comes next is a release.
      bell.wanted.store(wanted_, std::memory_order_relaxed);
      bell.waiting.store(1, std::memory_order_release);
      HeavyFence();
    }
    Seen seen = look(/*thorough=*/true);
    if (seen == Seen::kNothing) {
      const Peer peer = LookAtPeer();
      if (peer != Peer::kFine) {
        // What it did last comes first.
        seen = look(/*thorough=*/true);
        if (seen == Seen::kNothing) {
          retract();
          return PeerGone(peer);
        }
      }
    }
    if (seen != Seen::kNothing) {
      retract();
      return ToStatus(seen);
    }
    if (!may_wait || deadline.HasPassed()) {
      retract();
      return TimedOut(timeout);
    }
    FutexWait(bell.event, ticket,
              Deadline::Earlier(deadline, Deadline::After(tick_)));
    NoteCpu();
    seen = look(/*thorough=*/false);
    if (seen != Seen::kNothing) {
      retract();
      return ToStatus(seen);
    }
  }
}

}  // namespace ipc::pipe::internal

#endif  // IPC_PIPE_RING_END_H_
