#include "ipc/pipe/ring.h"

#include "absl/strings/str_cat.h"
#include "ipc/base/copy.h"
#include "ipc/base/deadline.h"
#include "ipc/pipe/ring_memory.h"

namespace ipc::pipe {

using internal::ReceiverCore;
using internal::SenderCore;

absl::StatusOr<UniqueFd> CreateRing(const RingOptions& options) {
  return internal::CreateRingMemory(options.capacity_bytes);
}

absl::Status Reservation::NotStaged(size_t bytes) const {
  if (core_ == nullptr) {
    return absl::FailedPreconditionError(
        "committing to a ring: committed already");
  }
  if (!core_->IsReserved()) return core_->NotReserved();
  return absl::InvalidArgumentError(
      absl::StrCat("committing ", bytes, " bytes to ring, fd ", core_->fd(),
                   ": only ", size_, " were reserved"));
}

absl::StatusOr<RingSender> RingSender::CreateAnonymous(
    const RingOptions& options) {
  absl::StatusOr<UniqueFd> fd = CreateRing(options);
  if (!fd.ok()) return fd.status();
  return FromFd(*std::move(fd));
}

absl::StatusOr<RingSender> RingSender::FromFd(UniqueFd fd) {
  absl::StatusOr<std::unique_ptr<SenderCore>> core =
      SenderCore::Attach(std::move(fd));
  if (!core.ok()) return core.status();
  return RingSender(*std::move(core));
}

absl::Status RingSender::Send(absl::Span<const std::byte> message,
                              absl::Duration timeout, uint32_t type) {
  uint64_t position;
  if (!core_->TryReserve(message.size(), &position)) [[unlikely]] {
    if (absl::Status status =
            core_->Reserve(message.size(), timeout, &position);
        !status.ok()) {
      return status;
    }
  }
  CopyBytes(core_->At(position) + internal::kRecordHeader, message.data(),
            message.size());
  core_->Stage(position, static_cast<uint32_t>(message.size()), type);
  return core_->Publish();
}

absl::Status RingSender::Send(absl::string_view message, absl::Duration timeout,
                              uint32_t type) {
  return Send(
      absl::Span<const std::byte>(
          reinterpret_cast<const std::byte*>(message.data()), message.size()),
      timeout, type);
}

absl::StatusOr<size_t> RingSender::SendBatch(
    absl::Span<const absl::string_view> messages, absl::Duration timeout) {
  const Deadline deadline = Deadline::After(timeout);
  size_t sent = 0;
  for (const absl::string_view message : messages) {
    // The first one may have the whole time, the others what is left of it.
    absl::StatusOr<Reservation> room =
        Reserve(message.size(), deadline.Remaining());
    absl::Status status = room.status();
    if (status.ok()) {
      CopyBytes(room->span().data(), message.data(), message.size());
      status = room->Stage();
    }
    if (!status.ok()) {
      if (sent == 0) return status;
      break;
    }
    ++sent;
  }
  if (absl::Status status = Publish(); !status.ok()) return status;
  return sent;
}

absl::StatusOr<RingReceiver> RingReceiver::FromFd(UniqueFd fd) {
  absl::StatusOr<std::unique_ptr<ReceiverCore>> core =
      ReceiverCore::Attach(std::move(fd));
  if (!core.ok()) return core.status();
  return RingReceiver(*std::move(core));
}

absl::StatusOr<std::optional<View>> RingReceiver::TryReceive() {
  absl::StatusOr<View> view = Receive(absl::ZeroDuration());
  if (view.ok()) return std::optional<View>(*std::move(view));
  if (absl::IsDeadlineExceeded(view.status())) return std::nullopt;
  return view.status();
}

absl::StatusOr<Batch> RingReceiver::ReceiveBatch(absl::Duration timeout) {
  if (absl::Status status = core_->AwaitAll(timeout); !status.ok())
    return status;
  return Batch(core_.get());
}

}  // namespace ipc::pipe
