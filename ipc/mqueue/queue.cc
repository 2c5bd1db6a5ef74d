#include "ipc/mqueue/queue.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/memory.h"
#include "ipc/base/participants.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/queue_core.h"
#include "ipc/mqueue/slot_word.h"

namespace ipc::mqueue {
namespace {

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

Queue::Queue(std::unique_ptr<Core> core) : core_(std::move(core)) {}
Queue::Queue(Queue&&) noexcept = default;
Queue& Queue::operator=(Queue&&) noexcept = default;
Queue::~Queue() = default;

absl::StatusOr<Queue> Queue::CreateAnonymous(const Options& options) {
  return Create(options, SlotWord::kMaxLapBits);
}

absl::StatusOr<Queue> Queue::Create(const Options& options, int lap_bits) {
  absl::StatusOr<Geometry> geometry =
      MakeGeometry(options.slots, options.message_bytes, options.participants,
                   lap_bits, static_cast<uint32_t>(options.full_policy));
  if (!geometry.ok()) return geometry.status();
  absl::StatusOr<UniqueFd> fd =
      CreateMemory("parley_mqueue", geometry->total_bytes);
  if (!fd.ok()) return fd.status();
  absl::StatusOr<Mapping> mapping =
      Mapping::Create(fd->get(), geometry->total_bytes);
  if (!mapping.ok()) return mapping.status();
  InitializeHeader(*geometry, reinterpret_cast<Header*>(mapping->data()));
  return Attach(*std::move(fd), *std::move(mapping), *geometry);
}

absl::StatusOr<Queue> Queue::FromFd(UniqueFd fd) {
  absl::StatusOr<Geometry> geometry = ReadGeometry(fd.get());
  if (!geometry.ok()) return geometry.status();
  if (geometry->full_policy > static_cast<uint32_t>(FullPolicy::kFail)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "mqueue behind fd ", fd.get(), " has full policy ",
        geometry->full_policy,
        ", which this program does not know: build both sides from the same "
        "version"));
  }
  absl::StatusOr<Mapping> mapping =
      Mapping::Create(fd.get(), geometry->total_bytes);
  if (!mapping.ok()) return mapping.status();
  return Attach(std::move(fd), *std::move(mapping), *geometry);
}

absl::StatusOr<Queue> Queue::Attach(UniqueFd fd, Mapping mapping,
                                    const Geometry& geometry) {
  auto core =
      std::make_unique<Core>(std::move(fd), std::move(mapping), geometry);
  SlotRing* const ring = &core->ring;
  absl::StatusOr<std::unique_ptr<Attachment>> attachment =
      Attachment::Create(core->fd.get(), ring->participants(),
                         [ring](Participant dead) { ring->Sweep(dead); });
  if (!attachment.ok()) return attachment.status();
  core->attachment = *std::move(attachment);
  return Queue(std::move(core));
}

int Queue::fd() const { return core_->fd.get(); }

absl::Status Queue::Send(absl::Span<const std::byte> message,
                         absl::Duration timeout) {
  return core_->Send(message, timeout);
}

absl::Status Queue::Send(absl::string_view message, absl::Duration timeout) {
  return core_->Send(AsBytes(message), timeout);
}

absl::Status Queue::TrySend(absl::Span<const std::byte> message) {
  return core_->TrySend(message);
}

absl::Status Queue::TrySend(absl::string_view message) {
  return core_->TrySend(AsBytes(message));
}

absl::StatusOr<std::string> Queue::Receive(absl::Duration timeout) {
  SlotRing::Claim claim;
  absl::Status status = core_->Acquire(Core::Side::kReceive, timeout, &claim);
  if (!status.ok()) return status;
  return core_->TakeString(claim);
}

absl::StatusOr<std::optional<std::string>> Queue::TryReceive() {
  SlotRing::Claim claim;
  absl::Status status = core_->TryAcquire(Core::Side::kReceive, &claim);
  if (absl::IsUnavailable(status)) return std::optional<std::string>();
  if (!status.ok()) return status;
  absl::StatusOr<std::string> message = core_->TakeString(claim);
  if (!message.ok()) return message.status();
  return std::optional<std::string>(*std::move(message));
}

absl::StatusOr<size_t> Queue::ReceiveInto(absl::Span<std::byte> buffer,
                                          absl::Duration timeout) {
  SlotRing::Claim claim;
  absl::Status status = core_->Acquire(Core::Side::kReceive, timeout, &claim);
  if (!status.ok()) return status;
  absl::StatusOr<absl::Span<const std::byte>> message = core_->Contents(claim);
  if (!message.ok()) return message.status();
  const size_t size = message->size();
  if (size > buffer.size()) {
    if (!core_->ring.PutBack(claim)) return core_->Fenced(Core::Side::kReceive);
    return absl::InvalidArgumentError(absl::StrCat(
        "Receive from mqueue, fd ", fd(), ": message of ", size,
        " bytes, buffer of ", buffer.size(),
        ": pass one of max_message_bytes(); the message is still there"));
  }
  if (size != 0) std::memcpy(buffer.data(), message->data(), size);
  // Only now is it ours: until here our death would pass it on.
  if (!core_->ring.CommitReceive(claim)) {
    return core_->Fenced(Core::Side::kReceive);
  }
  return size;
}

absl::Status Queue::CloseForSend() {
  core_->ring.Close();
  return absl::OkStatus();
}

size_t Queue::ApproximateSize() const { return core_->ring.ApproximateSize(); }

size_t Queue::capacity() const { return core_->ring.geometry().slot_count; }

size_t Queue::max_message_bytes() const {
  return core_->ring.geometry().message_bytes;
}

Stats Queue::stats() const {
  const SlotRing::Counts counts = core_->ring.Count();
  const auto& shared = core_->ring.header().shared;
  return {.sent = counts.sent,
          .received = counts.received,
          .pending = counts.pending,
          .redelivered = shared.redelivered.load(),
          .skipped = shared.skipped.load(),
          .reaped = shared.reaped.load()};
}

}  // namespace ipc::mqueue
