// A Queue whose messages are all of one type.
//
//   struct Order {
//     static constexpr uint64_t kLayoutId = ipc::shm::LayoutId("acme.Order/1");
//     int64_t id;
//     double price;
//   };
//   absl::StatusOr<TypedQueue<Order>> orders =
//       TypedQueue<Order>::CreateAnonymous({.slots = 64});
//   absl::Status status = orders->Send({.id = 7, .price = 1.5});
//   absl::StatusOr<Order> order = orders->Receive();
//
// T: see ipc/shm/shared_memory_safe.h and, for structs, LayoutId in
// ipc/shm/layout.h. The segment carries a hash of T: an end with another type
// is refused with FailedPrecondition.
//
// Everything else is as in Queue, which is there as queue().
#ifndef IPC_MQUEUE_TYPED_QUEUE_H_
#define IPC_MQUEUE_TYPED_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/queue.h"
#include "ipc/shm/layout.h"
#include "ipc/shm/shared_memory_safe.h"

namespace ipc::mqueue {

template <shm::SharedMemorySafe T>
class TypedQueue {
 public:
  // Options::message_bytes is ignored: it is sizeof(T).
  static absl::StatusOr<TypedQueue> CreateAnonymous(Options options = {}) {
    options.message_bytes = sizeof(T);
    return Check(Queue::CreateTyped(std::nullopt, options, kTypeId));
  }
  static absl::StatusOr<TypedQueue> Create(absl::string_view name,
                                           Options options = {}) {
    options.message_bytes = sizeof(T);
    return Check(Queue::CreateTyped(name, options, kTypeId));
  }
  static absl::StatusOr<TypedQueue> FromFd(UniqueFd fd,
                                           Role role = Role::kSendAndReceive) {
    return Check(Queue::FromFd(std::move(fd), role));
  }
  static absl::StatusOr<TypedQueue> Open(absl::string_view name,
                                         Role role = Role::kSendAndReceive) {
    return Check(Queue::Open(name, role));
  }

  absl::Status Send(const T& value, const SendOptions& options = {}) {
    return queue_.Send(AsBytes(value), options);
  }
  absl::Status TrySend(const T& value, const SendOptions& options = {}) {
    return queue_.TrySend(AsBytes(value), options);
  }
  // DataLoss if a peer sent something of another size.
  absl::StatusOr<T> Receive(absl::Duration timeout = absl::InfiniteDuration()) {
    T value;
    absl::StatusOr<size_t> size = queue_.ReceiveInto(
        absl::MakeSpan(reinterpret_cast<std::byte*>(&value), sizeof(T)),
        timeout);
    if (!size.ok()) return size.status();
    if (*size != sizeof(T)) return WrongSize();
    return value;
  }
  // nullopt if there is no message now.
  absl::StatusOr<std::optional<T>> TryReceive() {
    absl::StatusOr<std::optional<std::string>> bytes = queue_.TryReceive();
    if (!bytes.ok()) return bytes.status();
    if (!bytes->has_value()) return std::optional<T>();
    if ((*bytes)->size() != sizeof(T)) return WrongSize();
    T value;
    std::memcpy(&value, (*bytes)->data(), sizeof(T));
    return std::optional<T>(value);
  }

  Queue& queue() { return queue_; }

 private:
  static constexpr uint64_t kTypeId =
      shm::internal::LayoutHash<T>("TypedQueue", 1);

  explicit TypedQueue(Queue queue) : queue_(std::move(queue)) {}

  static absl::StatusOr<TypedQueue> Check(absl::StatusOr<Queue> queue) {
    if (!queue.ok()) return queue.status();
    if (queue->type_id() != kTypeId) {
      return absl::FailedPreconditionError(
          "mqueue: its messages are of another type than this end's T: build "
          "both sides from the same definition");
    }
    return TypedQueue(*std::move(queue));
  }
  static absl::Span<const std::byte> AsBytes(const T& value) {
    return {reinterpret_cast<const std::byte*>(&value), sizeof(T)};
  }
  static absl::Status WrongSize() {
    return absl::DataLossError(
        "mqueue: a peer has sent a message that is not of the queue's type");
  }

  Queue queue_;
};

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_TYPED_QUEUE_H_
