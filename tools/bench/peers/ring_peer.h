// ipc/pipe's ring, in place at both ends, and a batch at a time.
#ifndef TOOLS_BENCH_PEERS_RING_PEER_H_
#define TOOLS_BENCH_PEERS_RING_PEER_H_

#include <fcntl.h>

#include <cstddef>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/ring.h"
#include "tools/bench/die.h"
#include "tools/bench/peers/peer.h"

namespace bench {

class RingPeer {
 public:
  static constexpr char kName[] = "ring";

  // As many bytes as `depth` messages have.
  explicit RingPeer(const Load& load)
      : fd_(OrDie(ipc::pipe::CreateRing(
            {.capacity_bytes = load.depth * load.bytes}))) {}

  class Sender {
   public:
    Sender(RingPeer& peer, int)
        : sender_(OrDie(ipc::pipe::RingSender::FromFd(peer.Duplicate()))) {}
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      absl::StatusOr<ipc::pipe::Reservation> room = sender_.Reserve(bytes);
      if (!room.ok()) Die(room.status().ToString().c_str());
      fill(room->span().data());
      const absl::Status status = room->Commit();
      if (!status.ok()) Die(status.ToString().c_str());
    }

   private:
    ipc::pipe::RingSender sender_;
  };

  class Receiver {
   public:
    Receiver(RingPeer& peer, int)
        : receiver_(OrDie(ipc::pipe::RingReceiver::FromFd(peer.Duplicate()))) {}
    template <typename Use>
    void Receive(Use use) {
      const absl::StatusOr<ipc::pipe::View> view = receiver_.Receive();
      if (!view.ok()) Die(view.status().ToString().c_str());
      use(view->data().data(), view->data().size());
    }

   private:
    ipc::pipe::RingReceiver receiver_;
  };

 protected:
  template <typename T>
  static T OrDie(absl::StatusOr<T> result) {
    if (!result.ok()) Die(result.status().ToString().c_str());
    return *std::move(result);
  }
  ipc::UniqueFd Duplicate() const { return OrDie(fd_.Duplicate()); }

 private:
  ipc::UniqueFd fd_;
};

// Sixteen messages are published at once, and as many as there are received.
class RingBatchPeer : public RingPeer {
 public:
  static constexpr char kName[] = "ring, batches of 16";
  using RingPeer::RingPeer;

  class Sender {
   public:
    Sender(RingBatchPeer& peer, int)
        : sender_(OrDie(ipc::pipe::RingSender::FromFd(peer.Duplicate()))) {}
    template <typename Fill>
    void Send(size_t bytes, Fill fill) {
      absl::StatusOr<ipc::pipe::Reservation> room = sender_.Reserve(bytes);
      if (!room.ok()) Die(room.status().ToString().c_str());
      fill(room->span().data());
      const absl::Status status =
          ++sent_ % 16 == 0 ? room->Commit() : room->Stage();
      if (!status.ok()) Die(status.ToString().c_str());
    }

   private:
    ipc::pipe::RingSender sender_;
    unsigned sent_ = 0;
  };

  class Receiver {
   public:
    Receiver(RingBatchPeer& peer, int)
        : receiver_(OrDie(ipc::pipe::RingReceiver::FromFd(peer.Duplicate()))) {}
    template <typename Use>
    void Receive(Use use) {
      while (!batch_.has_value() || !batch_->Next()) {
        batch_.reset();
        absl::StatusOr<ipc::pipe::Batch> batch = receiver_.ReceiveBatch();
        if (!batch.ok()) Die(batch.status().ToString().c_str());
        batch_.emplace(*std::move(batch));
      }
      use(batch_->data().data(), batch_->data().size());
    }

   private:
    ipc::pipe::RingReceiver receiver_;
    std::optional<ipc::pipe::Batch> batch_;
  };
};

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_RING_PEER_H_
