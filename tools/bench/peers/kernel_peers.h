// What the kernel has: POSIX message queues (mq_overview(7)), pipes (pipe(7),
// whose writes of up to PIPE_BUF bytes are atomic) and unix sockets (unix(7)).
#ifndef TOOLS_BENCH_PEERS_KERNEL_PEERS_H_
#define TOOLS_BENCH_PEERS_KERNEL_PEERS_H_

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <string>

#include "tools/bench/die.h"
#include "tools/bench/peers/peer.h"

namespace bench {

class PosixMqPeer {
 public:
  static constexpr char kName[] = "POSIX mq";

  explicit PosixMqPeer(const Load& load) : bytes_(load.bytes) {
    const std::string name = "/parley-bench-" + std::to_string(getpid());
    mq_attr attributes = {};
    attributes.mq_msgsize = static_cast<long>(load.bytes);
    // More than the limit of msg_max needs CAP_SYS_RESOURCE.
    attributes.mq_maxmsg = static_cast<long>(load.depth);
    queue_ =
        mq_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
    if (queue_ < 0) {
      attributes.mq_maxmsg = 10;
      queue_ =
          mq_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
    }
    CheckCall(queue_ >= 0, "mq_open");
    mq_unlink(name.c_str());
  }
  PosixMqPeer(const PosixMqPeer&) = delete;
  PosixMqPeer& operator=(const PosixMqPeer&) = delete;
  ~PosixMqPeer() { mq_close(queue_); }

  class Sender {
   public:
    Sender(PosixMqPeer& peer, int)
        : queue_(peer.queue_), buffer_(peer.bytes_) {}
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      fill(buffer_.data());
      CheckCall(mq_send(queue_, reinterpret_cast<char*>(buffer_.data()), bytes,
                        0) == 0,
                "mq_send");
    }

   private:
    const mqd_t queue_;
    Buffer buffer_;
  };

  class Receiver {
   public:
    Receiver(PosixMqPeer& peer, int)
        : queue_(peer.queue_), buffer_(peer.bytes_) {}
    template <typename Use>
    void Receive(Use use) {
      const ssize_t n =
          mq_receive(queue_, reinterpret_cast<char*>(buffer_.data()),
                     buffer_.size(), nullptr);
      CheckCall(n >= 0, "mq_receive");
      use(static_cast<const std::byte*>(buffer_.data()),
          static_cast<size_t>(n));
    }

   private:
    const mqd_t queue_;
    Buffer buffer_;
  };

 private:
  const size_t bytes_;
  mqd_t queue_;
};

inline void WriteWhole(int fd, const std::byte* from, size_t bytes) {
  for (size_t sent = 0; sent < bytes;) {
    const ssize_t n = write(fd, from + sent, bytes - sent);
    CheckCall(n > 0, "write");
    sent += static_cast<size_t>(n);
  }
}

inline void ReadWhole(int fd, std::byte* to, size_t bytes) {
  for (size_t got = 0; got < bytes;) {
    const ssize_t n = read(fd, to + got, bytes - got);
    CheckCall(n > 0, "read");
    got += static_cast<size_t>(n);
  }
}

// write, of messages of one size, so they need no frames.
class FdSender {
 public:
  FdSender(int fd, size_t bytes) : fd_(fd), buffer_(bytes) {}
  template <typename Fill>
  void Send(size_t bytes, Fill fill) {
    fill(buffer_.data());
    WriteWhole(fd_, buffer_.data(), bytes);
  }

 private:
  const int fd_;
  Buffer buffer_;
};

// And read.
class FdReceiver {
 public:
  FdReceiver(int fd, size_t bytes) : fd_(fd), buffer_(bytes) {}
  template <typename Use>
  void Receive(Use use) {
    ReadWhole(fd_, buffer_.data(), buffer_.size());
    use(static_cast<const std::byte*>(buffer_.data()), buffer_.size());
  }

 private:
  const int fd_;
  Buffer buffer_;
};

// read and write on a pipe, or a pair of sockets, as the kernel makes it.
template <bool kSockets>
class FdPairPeer {
 public:
  static constexpr const char* kName = kSockets ? "bare sockets" : "pipe";

  explicit FdPairPeer(const Load& load) : bytes_(load.bytes) {
    if (kSockets) {
      CheckCall(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds_) == 0,
                "socketpair");
    } else {
      CheckCall(pipe2(fds_, O_CLOEXEC) == 0, "pipe2");
    }
  }
  FdPairPeer(const FdPairPeer&) = delete;
  FdPairPeer& operator=(const FdPairPeer&) = delete;
  ~FdPairPeer() {
    close(fds_[0]);
    close(fds_[1]);
  }

  struct Sender : FdSender {
    Sender(FdPairPeer& peer, int) : FdSender(peer.fds_[1], peer.bytes_) {}
  };
  struct Receiver : FdReceiver {
    Receiver(FdPairPeer& peer, int) : FdReceiver(peer.fds_[0], peer.bytes_) {}
  };

 private:
  const size_t bytes_;
  int fds_[2];
};

using PipePeer = FdPairPeer<false>;
using SocketPeer = FdPairPeer<true>;

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_KERNEL_PEERS_H_
