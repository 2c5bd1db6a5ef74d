#include "ipc/mqueue/queue.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/memory.h"
#include "ipc/base/named_memory.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/queue_core.h"
#include "ipc/mqueue/slot_word.h"

namespace ipc::mqueue {
namespace {

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

absl::Status CheckPolicies(int fd, const Geometry& geometry) {
  if (geometry.full_policy <=
          static_cast<uint32_t>(FullPolicy::kOverwriteOldest) &&
      geometry.delivery <= static_cast<uint32_t>(Delivery::kExplicitAck)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "mqueue behind fd ", fd, " has full policy ", geometry.full_policy,
      " and delivery ", geometry.delivery,
      ", which this program does not know: build both sides from the same "
      "version"));
}

}  // namespace

Queue::Queue(std::unique_ptr<QueueCore> core) : core_(std::move(core)) {}
Queue::Queue(Queue&&) noexcept = default;
Queue& Queue::operator=(Queue&&) noexcept = default;
Queue::~Queue() = default;

absl::StatusOr<Queue> Queue::CreateAnonymous(const Options& options) {
  return CreateWith(options, SlotWord::kMaxLapBits, 0, std::nullopt);
}

absl::StatusOr<Queue> Queue::Create(absl::string_view name,
                                    const Options& options) {
  return CreateWith(options, SlotWord::kMaxLapBits, 0, name);
}

absl::StatusOr<Queue> Queue::CreateTyped(std::optional<absl::string_view> name,
                                         const Options& options,
                                         uint64_t type_id) {
  return CreateWith(options, SlotWord::kMaxLapBits, type_id, name);
}

// The name comes last: nobody finds a queue that is not complete.
absl::StatusOr<Queue> Queue::CreateWith(const Options& options, int lap_bits,
                                        uint64_t type_id,
                                        std::optional<absl::string_view> name) {
  if (name.has_value()) {
    if (auto status = CheckMemoryName(*name); !status.ok()) return status;
  }
  absl::StatusOr<Geometry> geometry =
      MakeGeometry({.slots = options.slots,
                    .message_bytes = options.message_bytes,
                    .priorities = options.priorities,
                    .arena_bytes = options.arena_bytes,
                    .block_bytes = options.block_bytes,
                    .participants = options.participants,
                    .lap_bits = static_cast<uint32_t>(lap_bits),
                    .full_policy = static_cast<uint32_t>(options.full_policy),
                    .delivery = static_cast<uint32_t>(options.delivery),
                    .type_id = type_id});
  if (!geometry.ok()) return geometry.status();
  absl::StatusOr<UniqueFd> fd =
      name.has_value() ? CreateUnnamedFile(geometry->total_bytes)
                       : CreateMemory("parley_mqueue", geometry->total_bytes);
  if (!fd.ok()) return fd.status();
  absl::StatusOr<Mapping> mapping =
      Mapping::Create(fd->get(), geometry->total_bytes);
  if (!mapping.ok()) return mapping.status();
  InitializeHeader(*geometry, reinterpret_cast<Header*>(mapping->data()));
  const int raw_fd = fd->get();
  absl::StatusOr<Queue> queue = Attach(*std::move(fd), *std::move(mapping),
                                       *geometry, Role::kSendAndReceive);
  if (queue.ok() && name.has_value()) {
    if (absl::Status status = PublishMemory(raw_fd, *name); !status.ok()) {
      return status;
    }
  }
  return queue;
}

absl::StatusOr<Queue> Queue::FromFd(UniqueFd fd, Role role) {
  absl::StatusOr<Geometry> geometry = ReadGeometry(fd.get());
  if (!geometry.ok()) return geometry.status();
  if (absl::Status status = CheckPolicies(fd.get(), *geometry); !status.ok()) {
    return status;
  }
  absl::StatusOr<Mapping> mapping =
      Mapping::Create(fd.get(), geometry->total_bytes);
  if (!mapping.ok()) return mapping.status();
  return Attach(std::move(fd), *std::move(mapping), *geometry, role);
}

absl::StatusOr<Queue> Queue::Open(absl::string_view name, Role role) {
  absl::StatusOr<UniqueFd> fd = OpenNamedMemory(name);
  if (!fd.ok()) return fd.status();
  return FromFd(*std::move(fd), role);
}

absl::Status Queue::Unlink(absl::string_view name) {
  return UnlinkNamedMemory(name);
}

absl::StatusOr<Queue> Queue::Attach(UniqueFd fd, Mapping mapping,
                                    const Geometry& geometry, Role role) {
  auto core = std::make_unique<QueueCore>(std::move(fd), std::move(mapping),
                                          geometry, role);
  if (absl::Status status = core->Attach(); !status.ok()) return status;
  return Queue(std::move(core));
}

int Queue::fd() const { return core_->fd.get(); }

absl::Status Queue::Send(absl::Span<const std::byte> message,
                         absl::Duration timeout) {
  return core_->Send(message, {.timeout = timeout}, true);
}
absl::Status Queue::Send(absl::string_view message, absl::Duration timeout) {
  return core_->Send(AsBytes(message), {.timeout = timeout}, true);
}
absl::Status Queue::Send(absl::Span<const std::byte> message,
                         const SendOptions& options) {
  return core_->Send(message, options, true);
}
absl::Status Queue::Send(absl::string_view message,
                         const SendOptions& options) {
  return core_->Send(AsBytes(message), options, true);
}
absl::Status Queue::TrySend(absl::Span<const std::byte> message,
                            const SendOptions& options) {
  return core_->Send(message, options, false);
}
absl::Status Queue::TrySend(absl::string_view message,
                            const SendOptions& options) {
  return core_->Send(AsBytes(message), options, false);
}

absl::StatusOr<Loan> Queue::TryLoan(size_t bytes) {
  return core_->Lend(bytes, absl::ZeroDuration(), false);
}
absl::StatusOr<Loan> Queue::Lend(size_t bytes, absl::Duration timeout) {
  return core_->Lend(bytes, timeout, true);
}
absl::Status Queue::Send(Loan&& loan, const SendOptions& options) {
  return core_->SendLoan(&loan, options);
}

absl::StatusOr<std::string> Queue::Receive(absl::Duration timeout) {
  QueueCore::Taken taken;
  absl::Status status = core_->Take(timeout, true, &taken);
  if (!status.ok()) return status;
  return core_->FinishAsString(taken);
}

absl::StatusOr<size_t> Queue::ReceiveInto(absl::Span<std::byte> buffer,
                                          absl::Duration timeout) {
  return core_->ReceiveInto(buffer, timeout);
}

absl::StatusOr<std::optional<std::string>> Queue::TryReceive() {
  QueueCore::Taken taken;
  absl::Status status = core_->Take(absl::ZeroDuration(), false, &taken);
  if (absl::IsUnavailable(status)) return std::optional<std::string>();
  if (!status.ok()) return status;
  absl::StatusOr<std::string> message = core_->FinishAsString(taken);
  if (!message.ok()) return message.status();
  return std::optional<std::string>(*std::move(message));
}

absl::StatusOr<Message> Queue::ReceiveMessage(absl::Duration timeout) {
  QueueCore::Taken taken;
  absl::Status status = core_->Take(timeout, true, &taken);
  if (!status.ok()) return status;
  return core_->FinishAsMessage(taken);
}

absl::StatusOr<std::optional<Message>> Queue::TryReceiveMessage() {
  QueueCore::Taken taken;
  absl::Status status = core_->Take(absl::ZeroDuration(), false, &taken);
  if (absl::IsUnavailable(status)) return std::optional<Message>();
  if (!status.ok()) return status;
  absl::StatusOr<Message> message = core_->FinishAsMessage(taken);
  if (!message.ok()) return message.status();
  return std::optional<Message>(*std::move(message));
}

absl::StatusOr<std::vector<Message>> Queue::ReceiveBatch(
    size_t max, absl::Duration timeout) {
  return core_->ReceiveBatch(max, timeout);
}

absl::Status Queue::TaskDone() { return core_->TaskDone(); }
absl::Status Queue::Join(absl::Duration timeout) {
  return core_->Join(timeout);
}

absl::Status Queue::EnablePolling() { return core_->EnablePolling(); }
int Queue::poll_fd() const {
  return core_->HasPoller() ? core_->poller->fd() : -1;
}

absl::Status Queue::CloseForSend() {
  core_->Close();
  return absl::OkStatus();
}

size_t Queue::ApproximateSize() const {
  size_t size = 0;
  for (const SlotRing& ring : core_->lanes) size += ring.ApproximateSize();
  return size;
}
size_t Queue::capacity() const { return core_->geometry.slot_count; }
size_t Queue::max_message_bytes() const {
  return static_cast<size_t>(core_->geometry.message_bytes);
}
uint64_t Queue::type_id() const { return core_->geometry.type_id; }
Stats Queue::stats() const { return core_->stats(); }

}  // namespace ipc::mqueue
