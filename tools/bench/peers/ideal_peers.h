// What the machine can do: rings for one sender and one receiver without any of
// what a queue is for (no other participant, no death, no time-out), and a
// word in shared memory that is waited for by futex. They bound what any queue
// may take.
#ifndef TOOLS_BENCH_PEERS_IDEAL_PEERS_H_
#define TOOLS_BENCH_PEERS_IDEAL_PEERS_H_

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "tools/bench/clock.h"
#include "tools/bench/die.h"
#include "tools/bench/peers/peer.h"
#include "tools/bench/shared.h"

namespace bench {

inline void FutexWait(std::atomic<uint32_t>& word, uint32_t while_it_is) {
  syscall(SYS_futex, &word, FUTEX_WAIT, while_it_is, nullptr, nullptr, 0);
}
inline void FutexWake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

// A ring with positions on lines of their own and private copies of the other
// side's. `kSleeps`: who finds nothing spins for 20 us, if the other side runs
// on another CPU, and then sleeps; so that its peer needs no fence for each
// message, it is the sleeper who has one executed on all CPUs, by
// membarrier(2).
template <bool kSleeps>
class IdealRing {
 public:
  explicit IdealRing(const Load& load)
      : mask_(load.depth - 1),
        stride_((load.bytes + 63) / 64 * 64),
        data_(load.depth * stride_) {
    if ((load.depth & mask_) != 0) Die("the ideal ring takes powers of two");
  }

  class Sender {
   public:
    Sender(IdealRing& ring, int) : ring_(ring) { ring.Join(&State::sender); }
    template <typename Fill>
    void Send(size_t, Fill fill) {
      State& state = *ring_.state_;
      if (position_ - other_ > ring_.mask_) {
        ring_.WaitWhile(state.head, position_ - ring_.mask_ - 1, &other_,
                        state.sender, state.receiver);
      }
      fill(ring_.data_.data() + (position_ & ring_.mask_) * ring_.stride_);
      // The message is written; pairs with the acquire in WaitWhile.
      state.tail.word.store(++position_, std::memory_order_release);
      ring_.WakeIfAsleep(state.tail, state.receiver);
    }

   private:
    IdealRing& ring_;
    uint32_t position_ = 0;
    uint32_t other_ = 0;
  };

  class Receiver {
   public:
    Receiver(IdealRing& ring, int) : ring_(ring) {
      ring.Join(&State::receiver);
    }
    template <typename Use>
    void Receive(Use use) {
      State& state = *ring_.state_;
      if (other_ == position_) {
        ring_.WaitWhile(state.tail, position_, &other_, state.receiver,
                        state.sender);
      }
      use(static_cast<const std::byte*>(ring_.data_.data()) +
              (position_ & ring_.mask_) * ring_.stride_,
          ring_.stride_);
      // The message is read; pairs with the acquire in WaitWhile.
      state.head.word.store(++position_, std::memory_order_release);
      ring_.WakeIfAsleep(state.head, state.sender);
    }

   private:
    IdealRing& ring_;
    uint32_t position_ = 0;
    uint32_t other_ = 0;
  };

 private:
  struct Position {
    alignas(128) std::atomic<uint32_t> word;
  };
  struct Side {
    alignas(128) std::atomic<uint32_t> asleep;
    std::atomic<int> cpu;  // plus one; 0 before it has begun
  };
  struct State {
    Position tail;
    Position head;
    Side sender;
    Side receiver;
  };

  void Join(Side State::*side) {
    ((*state_).*side).cpu.store(sched_getcpu() + 1);
    if (kSleeps) {
      CheckCall(syscall(SYS_membarrier,
                        MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0,
                "membarrier");
    }
  }

  void WaitWhile(Position& position, uint32_t old, uint32_t* now, Side& me,
                 const Side& other) {
    const auto changed = [&] {
      // Pairs with the release of whoever has moved it.
      *now = position.word.load(std::memory_order_acquire);
      return *now != old;
    };
    if (!kSleeps) {
      while (!changed()) continue;
      return;
    }
    static const uint64_t kSpin = NsToTicks(20'000);
    while (true) {
      if (other.cpu.load(std::memory_order_relaxed) !=
          me.cpu.load(std::memory_order_relaxed)) {
        const uint64_t start = Ticks();
        do {
          if (changed()) return;
          __builtin_ia32_pause();
        } while (Ticks() - start < kSpin);
      }
      me.asleep.store(1, std::memory_order_relaxed);
      syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
      if (!changed()) FutexWait(position.word, old);
      me.asleep.store(0, std::memory_order_relaxed);
      if (changed()) return;
    }
  }

  // The compiler must not move the load up; the CPU is stopped by membarrier.
  static void WakeIfAsleep(Position& position, Side& other) {
    if (!kSleeps) return;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (other.asleep.load(std::memory_order_relaxed) != 0) {
      FutexWake(position.word);
    }
  }

  const uint32_t mask_;
  const size_t stride_;
  Shared<State> state_;
  SharedBytes data_;
};

class IdealSpinningPeer : public IdealRing<false> {
 public:
  static constexpr char kName[] = "ideal ring, spins";
  using IdealRing::IdealRing;
};

class IdealHybridPeer : public IdealRing<true> {
 public:
  static constexpr char kName[] = "ideal ring, spins 20 us, sleeps";
  using IdealRing::IdealRing;
};

// One word, always waited for in the kernel.
class FutexPeer {
 public:
  static constexpr char kName[] = "bare futex";

  explicit FutexPeer(const Load& load) : data_(load.bytes) {}

  class Sender {
   public:
    Sender(FutexPeer& peer, int) : peer_(peer) {}
    template <typename Fill>
    void Send(size_t, Fill fill) {
      fill(peer_.data_.data());
      // The message is written; pairs with the acquire in Receive.
      peer_.word_->fetch_add(1, std::memory_order_release);
      FutexWake(*peer_.word_);
    }

   private:
    FutexPeer& peer_;
  };

  class Receiver {
   public:
    Receiver(FutexPeer& peer, int) : peer_(peer) {}
    template <typename Use>
    void Receive(Use use) {
      // Pairs with the release in Send.
      while (peer_.word_->load(std::memory_order_acquire) == seen_) {
        FutexWait(*peer_.word_, seen_);
      }
      ++seen_;
      use(static_cast<const std::byte*>(peer_.data_.data()), size_t{64});
    }

   private:
    FutexPeer& peer_;
    uint32_t seen_ = 0;
  };

 private:
  Shared<std::atomic<uint32_t>> word_;
  SharedBytes data_;
};

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_IDEAL_PEERS_H_
