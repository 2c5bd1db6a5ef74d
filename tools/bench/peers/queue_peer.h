// ipc/mqueue, by copy and by loan.
#ifndef TOOLS_BENCH_PEERS_QUEUE_PEER_H_
#define TOOLS_BENCH_PEERS_QUEUE_PEER_H_

#include <fcntl.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "tools/bench/die.h"
#include "tools/bench/peers/peer.h"

namespace bench {

class QueuePeer {
 public:
  static constexpr char kName[] = "mqueue";

  explicit QueuePeer(const Load& load)
      : bytes_(load.bytes), queue_(Create(load)) {
    for (int i = 0; i < load.bystanders; ++i) {
      absl::StatusOr<ipc::mqueue::Queue> bystander = ipc::mqueue::Queue::FromFd(
          ipc::UniqueFd(fcntl(queue_.fd(), F_DUPFD_CLOEXEC, 0)));
      if (!bystander.ok()) Die(bystander.status().ToString().c_str());
      bystanders_.push_back(*std::move(bystander));
    }
  }

  class Sender {
   public:
    Sender(QueuePeer& peer, int) : queue_(peer.queue_), buffer_(peer.bytes_) {}
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      fill(buffer_.data());
      const absl::Status status =
          queue_.Send(absl::Span<const std::byte>(buffer_.data(), bytes));
      if (!status.ok()) Die(status.ToString().c_str());
    }

   private:
    ipc::mqueue::Queue& queue_;
    Buffer buffer_;
  };

  class Receiver {
   public:
    Receiver(QueuePeer& peer, int)
        : queue_(peer.queue_), buffer_(peer.bytes_) {}
    template <typename Use>
    void Receive(Use use) {
      const absl::StatusOr<size_t> n = queue_.ReceiveInto(
          absl::Span<std::byte>(buffer_.data(), buffer_.size()));
      if (!n.ok()) Die(n.status().ToString().c_str());
      use(static_cast<const std::byte*>(buffer_.data()), *n);
    }

   private:
    ipc::mqueue::Queue& queue_;
    Buffer buffer_;
  };

 protected:
  static ipc::mqueue::Queue Create(const Load& load) {
    absl::StatusOr<ipc::mqueue::Queue> queue =
        ipc::mqueue::Queue::CreateAnonymous(
            {.slots = load.depth,
             .message_bytes = load.bytes,
             // One block for each message, and all slots filled.
             .arena_bytes =
                 load.bytes > 240 ? (load.depth + 4) * load.bytes : 0,
             .block_bytes = load.bytes > 240 ? load.bytes : 0});
    if (!queue.ok()) Die(queue.status().ToString().c_str());
    return *std::move(queue);
  }

  const size_t bytes_;
  ipc::mqueue::Queue queue_;
  std::vector<ipc::mqueue::Queue> bystanders_;
};

// Nothing is copied: the sender writes and the receiver reads in the arena.
class QueueLoanPeer : public QueuePeer {
 public:
  static constexpr char kName[] = "mqueue, loan";
  using QueuePeer::QueuePeer;

  class Sender {
   public:
    Sender(QueueLoanPeer& peer, int) : queue_(peer.queue_) {}
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      absl::StatusOr<ipc::mqueue::Loan> loan = queue_.Lend(bytes);
      if (!loan.ok()) Die(loan.status().ToString().c_str());
      fill(loan->data().data());
      const absl::Status status = queue_.Send(*std::move(loan));
      if (!status.ok()) Die(status.ToString().c_str());
    }

   private:
    ipc::mqueue::Queue& queue_;
  };

  class Receiver {
   public:
    Receiver(QueueLoanPeer& peer, int) : queue_(peer.queue_) {}
    template <typename Use>
    void Receive(Use use) {
      const absl::StatusOr<ipc::mqueue::Message> message =
          queue_.ReceiveMessage();
      if (!message.ok()) Die(message.status().ToString().c_str());
      use(message->data().data(), message->data().size());
    }

   private:
    ipc::mqueue::Queue& queue_;
  };
};

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_QUEUE_PEER_H_
