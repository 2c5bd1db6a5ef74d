// Messages in place: a Loan is memory of a queue to write the next message in,
// a Message is one that was received, where it lies. Neither copies what is in
// the arena, so they cost the same from one byte to the whole arena; small ones
// (up to 240 bytes, unless the queue has explicit acknowledgement) are copied,
// which is faster.
//
//   absl::StatusOr<Loan> loan = queue.TryLoan(1 << 20);
//   Render(loan->data());
//   absl::Status status = queue.Send(*std::move(loan));
//
//   absl::StatusOr<Message> message = other.ReceiveMessage();
//   Show(message->data());
//   status = message->Ack();  // with Delivery::kExplicitAck
//
// Both are given back when they are destroyed: a Loan unsent; a Message as done
// with or, with explicit acknowledgement and no Ack, for another delivery.
//
// Lifetime: neither may outlive the Queue it came from (moving the Queue is
// fine). In a child forked meanwhile, those in the arena are the parent's: the
// child may read a Message, for as long as the parent keeps it; Ack, GiveBack
// and Send of the Loan are FailedPrecondition there, and the destructors do
// nothing. Small ones were copied by fork, so what the child does with them is
// the child's affair.
//
// Thread safety: as of a std::string; different ones by different threads.
#ifndef IPC_MQUEUE_MESSAGE_H_
#define IPC_MQUEUE_MESSAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ipc::mqueue {

class QueueCore;

// What Loan and Message own: a run of blocks, or bytes of their own.
class MessageMemory {
 public:
  MessageMemory() = default;
  MessageMemory(MessageMemory&& other) noexcept { MoveFrom(other); }
  MessageMemory& operator=(MessageMemory&&) = delete;
  void MoveFrom(MessageMemory& other);

  // Null if there is nothing (any more).
  QueueCore* core = nullptr;
  std::byte* data = nullptr;
  size_t size = 0;
  bool in_block = false;
  // Of the block: {index, generation}, and {index, epoch} of who owns it; and
  // Attachment::fork_depth of the process that does.
  uint32_t block[2] = {};
  uint32_t owner[2] = {};
  uint32_t fork_depth = 0;
  alignas(16) std::array<std::byte, 240> small;
};

class Loan {
 public:
  Loan(Loan&& other) noexcept = default;
  Loan& operator=(Loan&& other) noexcept;
  ~Loan();

  // Where to write the message, 16-byte aligned; in the arena 64-byte aligned.
  // What it holds at first is anything. Empty after a successful Send.
  absl::Span<std::byte> data() const { return {memory_.data, memory_.size}; }
  // Sends only the first `size` bytes. REQUIRES: not more than data().size().
  void Truncate(size_t size) { memory_.size = size; }

 private:
  friend class Queue;
  friend class QueueCore;
  Loan() = default;
  void Reset();

  MessageMemory memory_;
};

class Message {
 public:
  Message(Message&& other) noexcept = default;
  Message& operator=(Message&& other) noexcept;
  ~Message();

  // Valid until Ack, GiveBack or the end of this object. Copy what a peer that
  // is not to be trusted must not change under you: its sender can.
  absl::Span<const std::byte> data() const {
    return {memory_.data, memory_.size};
  }
  absl::string_view text() const {
    return {reinterpret_cast<const char*>(memory_.data), memory_.size};
  }
  // SendOptions::type of its sender.
  uint16_t type() const { return type_; }
  // Whether another receiver had it before, and died or gave it back.
  bool redelivered() const { return redelivered_; }

  // Says that the message is done with. With automatic acknowledgement it only
  // frees the memory sooner. FailedPrecondition if it was said already, or if
  // the message is the parent process's; Aborted if it has been taken away (see
  // queue.h): it is delivered again.
  absl::Status Ack();
  // Puts the message back, for any receiver, before all others.
  // FailedPrecondition with automatic acknowledgement, after Ack, or if the
  // message is the parent process's. Aborted as of Ack.
  absl::Status GiveBack();

 private:
  friend class Queue;
  friend class QueueCore;
  Message() = default;
  void Reset();

  MessageMemory memory_;
  uint16_t type_ = 0;
  bool redelivered_ = false;
};

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_MESSAGE_H_
