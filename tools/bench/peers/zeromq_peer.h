// ZeroMQ, PUSH to PULL over ipc: each receiver has an address to which all
// senders connect. (docs: api.zeromq.org)
#ifndef TOOLS_BENCH_PEERS_ZEROMQ_PEER_H_
#define TOOLS_BENCH_PEERS_ZEROMQ_PEER_H_

#include <stdlib.h>
#include <zmq.h>

#include <cstddef>
#include <filesystem>
#include <string>

#include "tools/bench/die.h"
#include "tools/bench/peers/peer.h"

namespace bench {

class ZeromqPeer {
 public:
  static constexpr char kName[] = "ZeroMQ";

  explicit ZeromqPeer(const Load& load) : load_(load) {
    char folder[] = "/tmp/parley-bench-XXXXXX";
    CheckCall(mkdtemp(folder) != nullptr, "mkdtemp");
    folder_ = folder;
  }
  ZeromqPeer(const ZeromqPeer&) = delete;
  ZeromqPeer& operator=(const ZeromqPeer&) = delete;
  // The sockets' files stay when a process is killed.
  ~ZeromqPeer() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  class Sender {
   public:
    Sender(ZeromqPeer& peer, int)
        : socket_(zmq_socket(zmq_ctx_new(), ZMQ_PUSH)),
          buffer_(peer.load_.bytes) {
      const int depth = static_cast<int>(peer.load_.depth);
      zmq_setsockopt(socket_, ZMQ_SNDHWM, &depth, sizeof(depth));
      for (int i = 0; i < peer.load_.receivers; ++i) {
        CheckCall(zmq_connect(socket_, peer.AddressOf(i).c_str()) == 0,
                  "zmq_connect");
      }
    }
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      fill(buffer_.data());
      CheckCall(zmq_send(socket_, buffer_.data(), bytes, 0) >= 0, "zmq_send");
    }

   private:
    void* const socket_;
    Buffer buffer_;
  };

  class Receiver {
   public:
    Receiver(ZeromqPeer& peer, int i)
        : socket_(zmq_socket(zmq_ctx_new(), ZMQ_PULL)),
          buffer_(peer.load_.bytes) {
      const int depth = static_cast<int>(peer.load_.depth);
      zmq_setsockopt(socket_, ZMQ_RCVHWM, &depth, sizeof(depth));
      CheckCall(zmq_bind(socket_, peer.AddressOf(i).c_str()) == 0, "zmq_bind");
    }
    template <typename Use>
    void Receive(Use use) {
      const int n = zmq_recv(socket_, buffer_.data(), buffer_.size(), 0);
      CheckCall(n >= 0, "zmq_recv");
      use(static_cast<const std::byte*>(buffer_.data()),
          static_cast<size_t>(n));
    }

   private:
    void* const socket_;
    Buffer buffer_;
  };

 private:
  std::string AddressOf(int receiver) const {
    return "ipc://" + folder_ + "/" + std::to_string(receiver);
  }

  const Load load_;
  std::string folder_;
};

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_ZEROMQ_PEER_H_
