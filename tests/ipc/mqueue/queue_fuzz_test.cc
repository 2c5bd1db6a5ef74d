// What a peer may have written into a segment, chosen by a fuzzer: the header
// that FromFd checks, and the words, lengths and names of blocks that every
// call checks. Any Status will do; access to other memory, a crash, a hang, a
// message longer than there can be will not.
//
// The input is a program: its first byte chooses the queue, and then each byte
// what is done next, with operands from the bytes behind it.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "tests/ipc/mqueue/queue_test_peer.h"

namespace ipc::mqueue {
namespace {

constexpr size_t kMaxBytes = 600;

void Check(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "does not hold: %s\n", what);
  abort();
}

// Operands, zero when the input has ended.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }

  template <typename T>
  T Take() {
    T value = {};
    const size_t n = std::min(size_, sizeof(T));
    std::memcpy(&value, data_, n);
    data_ += n;
    size_ -= n;
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

const Options kQueues[] = {
    {.slots = 2, .message_bytes = 48},
    {.slots = 4, .message_bytes = 240, .priorities = 3},
    {.slots = 4,
     .message_bytes = kMaxBytes,
     .arena_bytes = 4096,
     .block_bytes = 64},
    {.slots = 2,
     .message_bytes = kMaxBytes,
     .delivery = Delivery::kExplicitAck,
     .arena_bytes = 2048,
     .block_bytes = 128},
    {.slots = 2,
     .message_bytes = kMaxBytes,
     .full_policy = FullPolicy::kOverwriteOldest,
     .arena_bytes = 2048,
     .block_bytes = 256},
    {.slots = 1,
     .message_bytes = 300,
     .full_policy = FullPolicy::kDropNewest,
     .delivery = Delivery::kExplicitAck},
};

UniqueFd Duplicate(const Queue& queue) {
  return UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0));
}

// Whatever passes the check can be used without another one.
void CheckGeometry(int fd) {
  absl::StatusOr<Geometry> geometry = ReadGeometry(fd);
  if (!geometry.ok()) return;
  const off_t size = lseek(fd, 0, SEEK_END);
  Check(geometry->total_bytes == static_cast<uint64_t>(size), "total");
  Check(geometry->lanes >= 1 && geometry->lanes <= kMaxLanes, "lanes");
  Check(geometry->slot_count >= 1 && geometry->slot_count <= kMaxSlots,
        "slots");
  Check(geometry->participants_offset >=
            sizeof(Header) + geometry->lanes * sizeof(Lane),
        "participants behind the lanes");
  Check(geometry->participants_offset + uint64_t{8} * geometry->participants <=
            geometry->slots_offset,
        "slots behind the participants");
  Check(sizeof(SlotHeader) + geometry->inline_bytes <= geometry->slot_stride,
        "a message in its slot");
  Check(geometry->slots_offset + uint64_t{geometry->lanes} *
                                     geometry->slot_count *
                                     geometry->slot_stride <=
            geometry->blocks_offset,
        "blocks behind the slots");
  Check(geometry->blocks_offset + geometry->block_count * sizeof(BlockHeader) <=
            geometry->data_offset,
        "data behind the blocks");
  Check(geometry->data_offset +
                uint64_t{geometry->block_count} * geometry->block_bytes <=
            geometry->total_bytes,
        "data within the segment");
}

// Touches all of it, so that AddressSanitizer sees where it lies.
void CheckMessage(const Queue& queue, absl::Span<const std::byte> message) {
  Check(message.size() <= queue.max_message_bytes(), "length of a message");
  for (const std::byte& b : message) {
    (void)*static_cast<const volatile std::byte*>(&b);
  }
}

class Machine {
 public:
  explicit Machine(const Options& options)
      : creator_(*Queue::CreateAnonymous(options)) {}

  void Step(Input& input) {
    // The last ones came later: the inputs from before mean what they did.
    const uint8_t action = input.Take<uint8_t>();
    switch (action < 224 ? action % 14 : 14 + action % 3) {
      case 0:
        return Write<uint64_t>(input);
      case 1:
        return Write<uint32_t>(input);
      case 2:
        return Write<uint8_t>(input);
      case 3:  // Attach a second one, which checks the header.
        return Attach();
      case 4:
        kept_.clear();
        second_.reset();
        return;
      case 5: {
        const std::string message(input.Take<uint16_t>() % (kMaxBytes + 1),
                                  'm');
        (void)queue(input).TrySend(message,
                                   {.priority = input.Take<uint8_t>() % 4u});
        return;
      }
      case 6: {
        Queue& receiver = queue(input);
        absl::StatusOr<std::optional<std::string>> message =
            receiver.TryReceive();
        if (message.ok() && message->has_value()) {
          Check((*message)->size() <= receiver.max_message_bytes(),
                "length of a string");
        }
        return;
      }
      case 7: {
        Queue& receiver = queue(input);
        absl::StatusOr<std::optional<Message>> message =
            receiver.TryReceiveMessage();
        if (!message.ok() || !message->has_value()) return;
        CheckMessage(receiver, (*message)->data());
        kept_.push_back(*std::move(*message));
        return;
      }
      case 8:
        if (kept_.empty()) return;
        if (input.Take<uint8_t>() % 2 == 0) (void)kept_.back().Ack();
        kept_.pop_back();
        return;
      case 9: {
        const size_t bytes = input.Take<uint16_t>() % (kMaxBytes + 1);
        Queue& sender = queue(input);
        absl::StatusOr<Loan> loan = sender.TryLoan(bytes);
        if (!loan.ok()) return;
        Check(loan->data().size() == bytes, "the length of a loan");
        std::fill(loan->data().begin(), loan->data().end(), std::byte{'l'});
        (void)sender.Send(*std::move(loan), {.timeout = absl::ZeroDuration()});
        return;
      }
      case 10:
        (void)queue(input).TaskDone();
        return;
      case 11:
        (void)queue(input).stats();
        (void)queue(input).ApproximateSize();
        return;
      case 12: {
        std::byte buffer[64];
        absl::StatusOr<size_t> n =
            queue(input).ReceiveInto(buffer, absl::ZeroDuration());
        if (n.ok()) Check(*n <= sizeof(buffer), "length in a buffer");
        return;
      }
      case 13: {
        Queue& receiver = queue(input);
        absl::StatusOr<std::vector<Message>> messages =
            receiver.ReceiveBatch(3, absl::ZeroDuration());
        if (!messages.ok()) return;
        for (const Message& message : *messages) {
          CheckMessage(receiver, message.data());
        }
        return;
      }
      case 14:
        (void)queue(input).CloseForSend();
        return;
      case 15:
        (void)queue(input).Join(absl::ZeroDuration());
        return;
      case 16:
        if (kept_.empty()) return;
        (void)kept_.back().GiveBack();
        kept_.pop_back();
        return;
    }
  }

 private:
  // What a rogue can do to the part of the segment that is not data.
  template <typename T>
  void Write(Input& input) {
    const absl::Span<std::byte> bytes = QueueTestPeer::bytes(creator_);
    const uint16_t at = input.Take<uint16_t>();
    const T value = input.Take<T>();
    if (size_t{at} + sizeof(T) <= bytes.size()) {
      std::memcpy(bytes.data() + at, &value, sizeof(T));
    }
  }

  void Attach() {
    CheckGeometry(creator_.fd());
    absl::StatusOr<Queue> queue = Queue::FromFd(Duplicate(creator_));
    if (!queue.ok()) return;
    kept_.clear();
    second_.emplace(*std::move(queue));
  }

  Queue& queue(Input& input) {
    return second_.has_value() && input.Take<uint8_t>() % 2 == 1 ? *second_
                                                                 : creator_;
  }

  Queue creator_;
  std::optional<Queue> second_;
  // Behind the queues, which have to outlive them.
  std::vector<Message> kept_;
};

}  // namespace
}  // namespace ipc::mqueue

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ipc::mqueue::Input input(data, size);
  ipc::mqueue::Machine machine(
      ipc::mqueue::kQueues[input.Take<uint8_t>() %
                           std::size(ipc::mqueue::kQueues)]);
  while (!input.empty()) machine.Step(input);
  return 0;
}
