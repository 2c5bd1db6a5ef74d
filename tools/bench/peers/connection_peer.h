// Ours: a Connection over a pipe or a pair of sockets, and the same by hand.
#ifndef TOOLS_BENCH_PEERS_CONNECTION_PEER_H_
#define TOOLS_BENCH_PEERS_CONNECTION_PEER_H_

#include <endian.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ipc/pipe/connection.h"
#include "tools/bench/die.h"
#include "tools/bench/peers/kernel_peers.h"
#include "tools/bench/peers/peer.h"

namespace bench {

template <bool kDuplex, bool kReadAhead = false>
class ConnectionPeer {
 public:
  static constexpr const char* kName =
      kReadAhead ? "Connection, reads ahead" : "Connection";

  explicit ConnectionPeer(const Load& load)
      : bytes_(load.bytes), ends_(Create()) {}

  class Sender {
   public:
    Sender(ConnectionPeer& peer, int)
        : connection_(peer.ends_.second), buffer_(peer.bytes_) {}
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      fill(buffer_.data());
      const absl::Span<const std::byte> message(buffer_.data(), bytes);
      if (!connection_.Send(message).ok()) Die("Connection::Send");
    }

   private:
    ipc::pipe::Connection& connection_;
    Buffer buffer_;
  };

  class Receiver {
   public:
    Receiver(ConnectionPeer& peer, int)
        : connection_(peer.ends_.first), buffer_(peer.bytes_) {}
    template <typename Use>
    void Receive(Use use) {
      const auto size = connection_.ReceiveInto(
          absl::MakeSpan(buffer_.data(), buffer_.size()));
      if (!size.ok()) Die("Connection::ReceiveInto");
      use(static_cast<const std::byte*>(buffer_.data()), *size);
    }

   private:
    ipc::pipe::Connection& connection_;
    Buffer buffer_;
  };

 protected:
  static std::pair<ipc::pipe::Connection, ipc::pipe::Connection> Create() {
    auto ends =
        ipc::pipe::Connection::CreatePair(kDuplex, {.read_ahead = kReadAhead});
    if (!ends.ok()) Die("Connection::CreatePair");
    return *std::move(ends);
  }

  const size_t bytes_;
  std::pair<ipc::pipe::Connection, ipc::pipe::Connection> ends_;
};

// Many messages in each system call.
template <bool kDuplex>
class BatchPeer : public ConnectionPeer<kDuplex> {
 public:
  static constexpr char kName[] = "SendBatch";
  static constexpr size_t kBatch = 64;

  using ConnectionPeer<kDuplex>::ConnectionPeer;

  class Sender {
   public:
    Sender(BatchPeer& peer, int) : connection_(peer.ends_.second) {
      for (size_t i = 0; i < kBatch; ++i) buffers_.emplace_back(peer.bytes_);
    }
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      std::byte* const message = buffers_[views_.size()].data();
      fill(message);
      views_.emplace_back(reinterpret_cast<const char*>(message), bytes);
      if (views_.size() < kBatch) return;
      const auto sent = connection_.SendBatch(views_);
      if (!sent.ok() || *sent != kBatch) Die("Connection::SendBatch");
      views_.clear();
    }

   private:
    ipc::pipe::Connection& connection_;
    std::vector<Buffer> buffers_;
    std::vector<absl::string_view> views_;
  };

  class Receiver {
   public:
    Receiver(BatchPeer& peer, int) : connection_(peer.ends_.first) {}
    template <typename Use>
    void Receive(Use use) {
      if (next_ == messages_.size()) {
        auto messages = connection_.ReceiveBatch();
        if (!messages.ok()) Die("Connection::ReceiveBatch");
        messages_ = *std::move(messages);
        next_ = 0;
      }
      const std::string& message = messages_[next_++];
      use(reinterpret_cast<const std::byte*>(message.data()), message.size());
    }

   private:
    ipc::pipe::Connection& connection_;
    std::vector<std::string> messages_;
    size_t next_ = 0;
  };
};

// read and write on the descriptors of two Connections, which have sent a
// message, so that the kernel's buffer is as large as they would have it.
template <bool kDuplex>
class SameFdsPeer : public ConnectionPeer<kDuplex> {
 public:
  static constexpr char kName[] = "read and write, the same fds";

  explicit SameFdsPeer(const Load& load) : ConnectionPeer<kDuplex>(load) {
    // In a thread, as it may be larger than the buffer.
    std::thread sender([this] {
      const std::string message(this->bytes_, 'x');
      if (!this->ends_.second.Send(message).ok()) Die("Connection::Send");
    });
    if (!this->ends_.first.Receive().ok()) Die("Connection::Receive");
    sender.join();
  }

  struct Sender : FdSender {
    Sender(SameFdsPeer& peer, int)
        : FdSender(peer.ends_.second.poll_fd(), peer.bytes_) {}
  };
  struct Receiver : FdReceiver {
    Receiver(SameFdsPeer& peer, int)
        : FdReceiver(peer.ends_.first.poll_fd(), peer.bytes_) {}
  };
};

// The same with the header that a Connection sends, which lies before the
// message already: the least that a Connection can do over such a descriptor.
// Read along with the message, or before it, as must be done where nothing may
// be read ahead.
template <bool kDuplex, bool kHeaderFirst>
class FramesByHandPeer : public SameFdsPeer<kDuplex> {
 public:
  static constexpr const char* kName =
      kHeaderFirst ? "with a header, read first" : "with a header";

  using SameFdsPeer<kDuplex>::SameFdsPeer;

  class Sender {
   public:
    Sender(FramesByHandPeer& peer, int)
        : fd_(peer.ends_.second.poll_fd()), buffer_(peer.bytes_) {}
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      fill(buffer_.data());
      const uint32_t size = htobe32(static_cast<uint32_t>(bytes));
      std::byte* const frame = buffer_.data() - sizeof(size);
      std::memcpy(frame, &size, sizeof(size));
      WriteWhole(fd_, frame, sizeof(size) + bytes);
    }

   private:
    const int fd_;
    Buffer buffer_;
  };

  class Receiver {
   public:
    Receiver(FramesByHandPeer& peer, int)
        : fd_(peer.ends_.first.poll_fd()), buffer_(peer.bytes_) {}
    template <typename Use>
    void Receive(Use use) {
      uint32_t size = 0;
      std::byte* const frame = buffer_.data() - sizeof(size);
      if (kHeaderFirst) {
        ReadWhole(fd_, frame, sizeof(size));
        ReadWhole(fd_, buffer_.data(), buffer_.size());
      } else {
        ReadWhole(fd_, frame, sizeof(size) + buffer_.size());
      }
      std::memcpy(&size, frame, sizeof(size));
      use(static_cast<const std::byte*>(buffer_.data()), be32toh(size));
    }

   private:
    const int fd_;
    Buffer buffer_;
  };
};

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_CONNECTION_PEER_H_
