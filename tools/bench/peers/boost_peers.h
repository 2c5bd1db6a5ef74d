// Boost.Interprocess' message_queue, which sleeps on a condition variable under
// a mutex, and Boost.Lockfree's queues, which cannot sleep: they spin for a
// while and then give up the CPU. (docs: boost.org, Interprocess and Lockfree)
#ifndef TOOLS_BENCH_PEERS_BOOST_PEERS_H_
#define TOOLS_BENCH_PEERS_BOOST_PEERS_H_

#include <sched.h>
#include <unistd.h>

#include <array>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/lockfree/queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>
#include <cstddef>
#include <optional>
#include <string>

#include "tools/bench/die.h"
#include "tools/bench/peers/peer.h"
#include "tools/bench/shared.h"

namespace bench {

class BoostMessageQueuePeer {
 public:
  static constexpr char kName[] = "Boost message_queue";

  explicit BoostMessageQueuePeer(const Load& load) : bytes_(load.bytes) {
    const std::string name = "parley-bench-" + std::to_string(getpid());
    boost::interprocess::message_queue::remove(name.c_str());
    queue_.emplace(boost::interprocess::create_only, name.c_str(), load.depth,
                   load.bytes);
    // The mapping is all that the children need.
    boost::interprocess::message_queue::remove(name.c_str());
  }

  class Sender {
   public:
    Sender(BoostMessageQueuePeer& peer, int)
        : queue_(*peer.queue_), buffer_(peer.bytes_) {}
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      fill(buffer_.data());
      queue_.send(buffer_.data(), bytes, 0);
    }

   private:
    boost::interprocess::message_queue& queue_;
    Buffer buffer_;
  };

  class Receiver {
   public:
    Receiver(BoostMessageQueuePeer& peer, int)
        : queue_(*peer.queue_), buffer_(peer.bytes_) {}
    template <typename Use>
    void Receive(Use use) {
      size_t n;
      unsigned priority;
      queue_.receive(buffer_.data(), buffer_.size(), n, priority);
      use(static_cast<const std::byte*>(buffer_.data()), n);
    }

   private:
    boost::interprocess::message_queue& queue_;
    Buffer buffer_;
  };

 private:
  const size_t bytes_;
  std::optional<boost::interprocess::message_queue> queue_;
};

// Tries until it succeeds; on a shared CPU the peer must get its turn.
template <typename Try>
void SpinThenYield(Try attempt) {
  for (int i = 0; !attempt(); ++i) {
    if (i % 128 == 127) {
      sched_yield();
    } else {
      __builtin_ia32_pause();
    }
  }
}

// `Ring` has push(const Element&) and pop(Element&), and lies in shared memory.
template <typename Ring, size_t kBytes>
class BoostLockfree {
 public:
  using Element = std::array<std::byte, kBytes>;

  explicit BoostLockfree(const Load& load) {
    if (load.bytes != kBytes) Die("Boost.Lockfree: another size was built in");
  }

  class Sender {
   public:
    Sender(BoostLockfree& peer, int) : ring_(*peer.ring_) {}
    template <typename Fill>
    void Send(size_t, Fill fill) {
      fill(element_.data());
      SpinThenYield([&] { return ring_.push(element_); });
    }

   private:
    Ring& ring_;
    Element element_;
  };

  class Receiver {
   public:
    Receiver(BoostLockfree& peer, int) : ring_(*peer.ring_) {}
    template <typename Use>
    void Receive(Use use) {
      SpinThenYield([&] { return ring_.pop(element_); });
      use(static_cast<const std::byte*>(element_.data()), kBytes);
    }

   private:
    Ring& ring_;
    Element element_;
  };

 private:
  Shared<Ring> ring_;
};

template <size_t kBytes>
using BoostMpmcRing = boost::lockfree::queue<std::array<std::byte, kBytes>,
                                             boost::lockfree::capacity<1024>>;
template <size_t kBytes>
using BoostSpscRing =
    boost::lockfree::spsc_queue<std::array<std::byte, kBytes>,
                                boost::lockfree::capacity<1024>>;

class BoostLockfreeQueuePeer : public BoostLockfree<BoostMpmcRing<64>, 64> {
 public:
  static constexpr char kName[] = "Boost lockfree queue (yields)";
  using BoostLockfree::BoostLockfree;
};

class BoostLockfreeSpscPeer : public BoostLockfree<BoostSpscRing<64>, 64> {
 public:
  static constexpr char kName[] = "Boost lockfree spsc (yields)";
  using BoostLockfree::BoostLockfree;
};

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_BOOST_PEERS_H_
