// iceoryx 2.0.3 by untyped publisher and subscriber: in place, with a publisher
// that waits for its subscriber, and a subscriber that polls, which is the
// fastest that it offers. (docs: iceoryx.io)
#ifndef TOOLS_BENCH_PEERS_ICEORYX_PEER_H_
#define TOOLS_BENCH_PEERS_ICEORYX_PEER_H_

#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iceoryx_posh/popo/untyped_publisher.hpp>
#include <iceoryx_posh/popo/untyped_subscriber.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>
#include <memory>
#include <string>

#include "tools/bench/die.h"
#include "tools/bench/peers/peer.h"

namespace bench {

// The daemon without which nothing goes, in a process of its own. It does not
// outlast a measurement, for whoever is killed at the end of that keeps its
// chunks, and may leave the daemon locked when that looks after the dead.
class IceoryxDaemon {
 public:
  // The one that runs, or a new one.
  static std::shared_ptr<IceoryxDaemon> Get();
  IceoryxDaemon(const IceoryxDaemon&) = delete;
  IceoryxDaemon& operator=(const IceoryxDaemon&) = delete;
  ~IceoryxDaemon();

 private:
  IceoryxDaemon();

  pid_t pid_;
};

class IceoryxPeer {
 public:
  static constexpr char kName[] = "iceoryx (polls)";

  explicit IceoryxPeer(const Load& load);

  class Sender {
   public:
    Sender(IceoryxPeer& peer, int)
        : registered_(peer.Register("s")),
          publisher_({"parley", "bench",
                      iox::capro::IdString_t(iox::cxx::TruncateToCapacity,
                                             peer.topic_.c_str())},
                     Options()) {
      while (!publisher_.hasSubscribers()) continue;
    }
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      auto chunk = publisher_.loan(static_cast<uint32_t>(bytes));
      // The pool is empty until the subscriber gives something back.
      while (chunk.has_error()) {
        chunk = publisher_.loan(static_cast<uint32_t>(bytes));
      }
      fill(static_cast<std::byte*>(*chunk));
      publisher_.publish(*chunk);
    }

   private:
    static iox::popo::PublisherOptions Options() {
      iox::popo::PublisherOptions options;
      options.subscriberTooSlowPolicy =
          iox::popo::ConsumerTooSlowPolicy::WAIT_FOR_CONSUMER;
      return options;
    }

    const bool registered_;
    iox::popo::UntypedPublisher publisher_;
  };

  class Receiver {
   public:
    Receiver(IceoryxPeer& peer, int)
        : registered_(peer.Register("r")),
          bytes_(peer.bytes_),
          subscriber_({"parley", "bench",
                       iox::capro::IdString_t(iox::cxx::TruncateToCapacity,
                                              peer.topic_.c_str())},
                      Options(peer.depth_)) {}
    template <typename Use>
    void Receive(Use use) {
      auto chunk = subscriber_.take();
      while (chunk.has_error()) chunk = subscriber_.take();
      use(static_cast<const std::byte*>(*chunk), bytes_);
      subscriber_.release(*chunk);
    }

   private:
    static iox::popo::SubscriberOptions Options(size_t depth) {
      iox::popo::SubscriberOptions options;
      // At most, and unless told otherwise, 256.
      options.queueCapacity = std::min<uint64_t>(options.queueCapacity, depth);
      options.queueFullPolicy = iox::popo::QueueFullPolicy::BLOCK_PRODUCER;
      return options;
    }

    const bool registered_;
    const size_t bytes_;
    iox::popo::UntypedSubscriber subscriber_;
  };

 private:
  // Once in each process, before anything else of iceoryx.
  static bool Register(const char* role);

  const std::shared_ptr<IceoryxDaemon> daemon_;
  const size_t bytes_;
  const size_t depth_;
  std::string topic_;
};

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_ICEORYX_PEER_H_
