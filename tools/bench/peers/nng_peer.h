// nng, push to pull over ipc: the receiver listens, the sender dials.
// (docs: nng.nanomsg.org)
#ifndef TOOLS_BENCH_PEERS_NNG_PEER_H_
#define TOOLS_BENCH_PEERS_NNG_PEER_H_

#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <stdlib.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>

#include "tools/bench/die.h"
#include "tools/bench/peers/peer.h"

namespace bench {

// For one sender and one receiver.
class NngPeer {
 public:
  static constexpr char kName[] = "nng";

  explicit NngPeer(const Load& load) : load_(load) {
    char folder[] = "/tmp/parley-bench-XXXXXX";
    CheckCall(mkdtemp(folder) != nullptr, "mkdtemp");
    folder_ = folder;
  }
  NngPeer(const NngPeer&) = delete;
  NngPeer& operator=(const NngPeer&) = delete;
  // The socket's file stays when a process is killed.
  ~NngPeer() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  class Sender {
   public:
    Sender(NngPeer& peer, int) : buffer_(peer.load_.bytes) {
      Check(nng_push0_open(&socket_), "nng_push0_open");
      Check(nng_socket_set_int(socket_, NNG_OPT_SENDBUF, peer.depth()),
            "NNG_OPT_SENDBUF");
      // It tries again until somebody listens.
      Check(
          nng_dial(socket_, peer.address().c_str(), nullptr, NNG_FLAG_NONBLOCK),
          "nng_dial");
    }
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      fill(buffer_.data());
      Check(nng_send(socket_, buffer_.data(), bytes, 0), "nng_send");
    }

   private:
    nng_socket socket_;
    Buffer buffer_;
  };

  class Receiver {
   public:
    Receiver(NngPeer& peer, int) : buffer_(peer.load_.bytes) {
      Check(nng_pull0_open(&socket_), "nng_pull0_open");
      Check(nng_socket_set_int(socket_, NNG_OPT_RECVBUF, peer.depth()),
            "NNG_OPT_RECVBUF");
      Check(nng_socket_set_size(socket_, NNG_OPT_RECVMAXSZ, 0),
            "NNG_OPT_RECVMAXSZ");
      Check(nng_listen(socket_, peer.address().c_str(), nullptr, 0),
            "nng_listen");
    }
    template <typename Use>
    void Receive(Use use) {
      size_t bytes = buffer_.size();
      Check(nng_recv(socket_, buffer_.data(), &bytes, 0), "nng_recv");
      use(static_cast<const std::byte*>(buffer_.data()), bytes);
    }

   private:
    nng_socket socket_;
    Buffer buffer_;
  };

 private:
  static void Check(int error, const char* what) {
    if (error != 0)
      Die((std::string(what) + ": " + nng_strerror(error)).c_str());
  }
  // nng takes no more.
  int depth() const {
    return static_cast<int>(std::min<size_t>(load_.depth, 8192));
  }
  std::string address() const { return "ipc://" + folder_ + "/socket"; }

  const Load load_;
  std::string folder_;
};

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_NNG_PEER_H_
