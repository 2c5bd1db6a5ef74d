#include "ipc/mqueue/queue_core.h"

#include <time.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"

namespace ipc::mqueue {
namespace {

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace

Queue::Core::Core(UniqueFd segment_fd, Mapping segment,
                  const Geometry& geometry)
    : fd(std::move(segment_fd)),
      mapping(std::move(segment)),
      ring(mapping.data(), geometry),
      last_reap_ms(NowMs()) {}

absl::Status Queue::Core::Acquire(Side side, absl::Duration timeout,
                                  Claim* claim) {
  absl::StatusOr<Participant> self = attachment->Self();
  if (!self.ok()) return self.status();
  const Outcome outcome = Begin(side, *self, claim);
  if (outcome == Outcome::kOk) {
    NotePeer(side, *claim);
    return absl::OkStatus();
  }
  if (outcome != Outcome::kWouldBlock) return ToStatus(side, outcome);
  return Wait(side, *self, timeout, claim);
}

absl::Status Queue::Core::TryAcquire(Side side, Claim* claim) {
  absl::StatusOr<Participant> self = attachment->Self();
  if (!self.ok()) return self.status();
  Outcome outcome = Begin(side, *self, claim);
  // Where everybody polls, nobody sleeps, and the polls have to look for the
  // dead.
  if (outcome == Outcome::kWouldBlock && IsReapDue()) {
    attachment->ReapAll();
    ClearBlocker(*claim);
    outcome = Begin(side, *self, claim);
  }
  return ToStatus(side, outcome);
}

absl::Status Queue::Core::Wait(Side side, Participant self,
                               absl::Duration timeout, Claim* claim) {
  const Deadline deadline = Deadline::After(timeout);
  Doorbell& bell =
      side == Side::kSend ? ring.header().senders : ring.header().receivers;
  if (timeout > absl::ZeroDuration()) {
    const int i = static_cast<int>(side);
    SpinWait spin(&spin_history[i],
                  peer_cpu[i].load(std::memory_order_relaxed));
    while (spin.Next()) {
      const Outcome outcome = Begin(side, self, claim);
      if (outcome == Outcome::kWouldBlock) continue;
      spin.Succeeded();
      if (outcome == Outcome::kOk) NotePeer(side, *claim);
      return ToStatus(side, outcome);
    }
  }
  ClearBlocker(*claim);
  for (bool slept = false;; slept = true) {
    // From here on whoever commits something for us knows that we wait.
    const uint32_t ticket = bell.Announce();
    const Outcome outcome = Begin(side, self, claim);
    if (outcome != Outcome::kWouldBlock) {
      if (outcome == Outcome::kOk) NotePeer(side, *claim);
      // Whoever woke us may have made room for more than one.
      if (slept && (side == Side::kSend ? ring.MaySend() : ring.MayReceive())) {
        bell.Ring();
      }
      return ToStatus(side, outcome);
    }
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          side == Side::kSend ? "Send to mqueue, fd "
                              : "Receive from mqueue, fd ",
          fd.get(),
          side == Side::kSend ? ": still full after " : ": still empty after ",
          absl::FormatDuration(timeout)));
    }
    const Deadline tick = Deadline::After(park_tick);
    if (!bell.Sleep(ticket, Deadline::Earlier(tick, deadline))) {
      // Nobody may be left to ring: one may have died between its commit and
      // its Ring, or holding the slot that we wait for.
      attachment->ReapAll();
      ClearBlocker(*claim);
    }
  }
}

void Queue::Core::NotePeer(Side side, const Claim& claim) {
  std::atomic<int>& noted = peer_cpu[static_cast<int>(side)];
  const int cpu = ring.ExchangeCpu(claim);
  // Threads that share this object need not share a written cache line.
  if (noted.load(std::memory_order_relaxed) != cpu) {
    noted.store(cpu, std::memory_order_relaxed);
  }
}

bool Queue::Core::ClearBlocker(const Claim& seen) {
  return seen.word.IsOwned() && (attachment->ReapOne(seen.word.owner_index()) ||
                                 ring.HealOrphan(seen));
}

bool Queue::Core::IsReapDue() {
  const int64_t now = NowMs();
  // Relaxed, see the member.
  if (now - last_reap_ms.load(std::memory_order_relaxed) <
      absl::ToInt64Milliseconds(park_tick)) {
    return false;
  }
  last_reap_ms.store(now, std::memory_order_relaxed);
  return true;
}

absl::Status Queue::Core::ToStatus(Side side, Outcome outcome) const {
  switch (outcome) {
    case Outcome::kOk:
      return absl::OkStatus();
    case Outcome::kWouldBlock:
      return absl::UnavailableError("");  // never seen by users
    case Outcome::kClosed:
      if (side == Side::kSend) {
        return absl::FailedPreconditionError(
            absl::StrCat("Send to mqueue, fd ", fd.get(), ": closed for send"));
      }
      return absl::OutOfRangeError(
          absl::StrCat("Receive from mqueue, fd ", fd.get(),
                       ": closed for send, and all messages received"));
    case Outcome::kCorrupt:
      break;
  }
  return absl::DataLossError(
      absl::StrCat("mqueue, fd ", fd.get(),
                   ": a peer has damaged the segment; create a new queue"));
}

absl::Status Queue::Core::Fenced(Side side) {
  const std::string what = absl::StrCat(
      side == Side::kSend ? "Send to mqueue, fd " : "Receive from mqueue, fd ",
      fd.get());
  if (absl::Status status = attachment->RenewIfLost(); !status.ok()) {
    return Annotate(status, what);
  }
  return absl::AbortedError(absl::StrCat(
      what,
      ": our slot was taken away; did this process close descriptors "
      "that it does not own? Try again"));
}

absl::StatusOr<absl::Span<const std::byte>> Queue::Core::Contents(
    const Claim& claim) {
  const absl::Span<const std::byte> contents = ring.Contents(claim);
  if (contents.data() != nullptr) return contents;
  ring.CommitReceive(claim);
  return absl::DataLossError(
      absl::StrCat("Receive from mqueue, fd ", fd.get(),
                   ": dropped a message that claims to be longer than the ",
                   ring.geometry().message_bytes, " bytes of a slot"));
}

absl::Status Queue::Core::CheckSize(size_t size) const {
  const size_t max = ring.geometry().message_bytes;
  if (size <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "Send to mqueue, fd ", fd.get(), ": message of ", size,
      " bytes, at most ", max,
      " fit: create the queue with a larger Options::message_bytes"));
}

absl::Status Queue::Core::FillAndCommit(absl::Span<const std::byte> message,
                                        const Claim& claim) {
  ring.Fill(claim, message);
  return ring.CommitSend(claim) ? absl::OkStatus() : Fenced(Side::kSend);
}

absl::Status Queue::Core::TrySend(absl::Span<const std::byte> message) {
  if (absl::Status status = CheckSize(message.size()); !status.ok()) {
    return status;
  }
  Claim claim;
  absl::Status status = TryAcquire(Side::kSend, &claim);
  if (absl::IsUnavailable(status)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "Send to mqueue, fd ", fd.get(), ": all ", ring.geometry().slot_count,
        " slots are full: receive, wait, or create it with a "
        "larger Options::slots"));
  }
  return status.ok() ? FillAndCommit(message, claim) : status;
}

absl::Status Queue::Core::Send(absl::Span<const std::byte> message,
                               absl::Duration timeout) {
  if (ring.geometry().full_policy == static_cast<uint32_t>(FullPolicy::kFail)) {
    return TrySend(message);
  }
  if (absl::Status status = CheckSize(message.size()); !status.ok()) {
    return status;
  }
  Claim claim;
  absl::Status status = Acquire(Side::kSend, timeout, &claim);
  return status.ok() ? FillAndCommit(message, claim) : status;
}

absl::StatusOr<std::string> Queue::Core::TakeString(const Claim& claim) {
  absl::StatusOr<absl::Span<const std::byte>> contents = Contents(claim);
  if (!contents.ok()) return contents.status();
  std::string message(reinterpret_cast<const char*>(contents->data()),
                      contents->size());
  // Only now is it ours: until here our death would pass it on.
  if (!ring.CommitReceive(claim)) return Fenced(Side::kReceive);
  return message;
}

}  // namespace ipc::mqueue
