#include "ipc/mqueue/queue_core.h"

#include <time.h>
#include <unistd.h>

#include <climits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

namespace ipc::mqueue {
namespace {

// Some milliseconds late, and for that four times as fast as the exact one.
int64_t CoarseNowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

uint64_t AtLeastZero(uint64_t difference) {
  return static_cast<int64_t>(difference) < 0 ? 0 : difference;
}

std::vector<SlotRing> MakeLanes(const Mapping& mapping,
                                const Geometry& geometry) {
  std::vector<SlotRing> lanes;
  lanes.reserve(geometry.lanes);
  for (uint32_t i = 0; i < geometry.lanes; ++i) {
    lanes.emplace_back(mapping.data(), geometry, i);
  }
  return lanes;
}

}  // namespace

QueueCore::QueueCore(UniqueFd segment_fd, Mapping segment,
                     const Geometry& the_geometry, Role the_role)
    : fd(std::move(segment_fd)),
      file(fd.get()),
      mapping(std::move(segment)),
      geometry(the_geometry),
      role(the_role),
      receives_from_slots(role != Role::kSend && geometry.lanes == 1 &&
                          !is_explicit()),
      lanes(MakeLanes(mapping, geometry)),
      arena(mapping.data(), geometry),
      participants(reinterpret_cast<ParticipantTable::Word*>(
                       mapping.data() + geometry.participants_offset),
                   geometry.participants),
      last_reap_ms(CoarseNowMs()),
      // With explicit acknowledgement each receiver may hold messages for long,
      // and a message costs more.
      busy_mask(is_explicit() ? 3 : 63),
      unacked_(new UnackedList) {}

absl::Status QueueCore::Attach() {
  absl::StatusOr<std::unique_ptr<Attachment>> created = Attachment::Create(
      fd.get(), participants, [this](Participant dead) { Sweep(dead); });
  if (!created.ok()) return created.status();
  attachment = *std::move(created);
  return absl::OkStatus();
}

QueueCore::~QueueCore() {
  const std::unique_ptr<UnackedList> list(&unacked());
  for (const Unacked& unacked : list->messages) {
    if (arena.GiveBack(unacked.self, unacked.block)) AnnounceReturned();
  }
}

QueueCore::UnackedList& QueueCore::unacked() {
  // Acquire pairs with the release below.
  UnackedList* list = unacked_.load(std::memory_order_acquire);
  if (list->fork_depth == Attachment::fork_depth()) return *list;
  // What the parent took is the parent's to acknowledge. Its list is left
  // alone: it may be locked, and half changed.
  auto own = std::make_unique<UnackedList>();
  if (unacked_.compare_exchange_strong(list, own.get(),
                                       std::memory_order_acq_rel)) {
    return *own.release();
  }
  return *list;
}

absl::Status QueueCore::NotOwn(absl::string_view operation) const {
  return absl::FailedPreconditionError(
      absl::StrCat(Name(operation),
                   ": the memory is that of the parent process, which forked "
                   "this one while it had it"));
}

absl::Status QueueCore::AttachAnew(Participant* self) const {
  const absl::StatusOr<Participant> attached = attachment->Self();
  if (attached.ok()) *self = *attached;
  return attached.status();
}

bool QueueCore::MayContinue(Side side) const {
  const bool returned = (header().shared.returned.load() & 1) != 0;
  if (side == Side::kReceive && returned) return true;
  for (const SlotRing& ring : lanes) {
    if (side == Side::kSend ? ring.MaySend() : ring.MayReceive()) return true;
  }
  return false;
}

bool QueueCore::LooksDamaged() const {
  for (const SlotRing& ring : lanes) {
    if (ring.LooksDamaged()) return true;
  }
  return false;
}

void QueueCore::ClearBlocker(const Blocker& blocker) {
  if (blocker.kind == Blocker::kBlock) {
    attachment->ReapOne(blocker.owner);
  } else if (blocker.kind == Blocker::kSlot && blocker.claim.word.IsOwned() &&
             !attachment->ReapOne(blocker.claim.word.owner_index()) &&
             lanes[blocker.lane].HealOrphan(blocker.claim)) {
    RingReceivers();
  }
}

void QueueCore::ReapAll(Deadline deadline) {
  // Relaxed, see the member.
  last_reap_ms.store(CoarseNowMs(), std::memory_order_relaxed);
  // Longer only where a peer makes participants look dead again and again.
  attachment->ReapAll(Deadline::Earlier(deadline, Deadline::After(park_tick)));
}

bool QueueCore::IsReapDue() const {
  // Relaxed, see the member.
  return CoarseNowMs() - last_reap_ms.load(std::memory_order_relaxed) >=
         absl::ToInt64Milliseconds(park_tick);
}

// Slots before blocks: a block that is HELD by the dead one may still belong to
// its slot, which only the slot tells.
void QueueCore::Sweep(Participant dead) {
  for (SlotRing& ring : lanes) ring.Sweep(dead, &arena);
  arena.Sweep(dead, is_explicit(), participants);
  // Relaxed: a statistic orders nothing.
  header().counts.reaped.fetch_add(1, std::memory_order_relaxed);
  // In any case: another reaper may have changed a block and died.
  if (is_explicit()) AnnounceReturned();
  header().receivers.bell.RingAll();
  PokePollers();
  header().senders.bell.RingAll();
  header().senders.joiners.RingAll();
}

void QueueCore::RingReceiversAtEnd() {
  header().receivers.bell.Ring(INT_MAX);
  if (IsArmed(header().receivers.armed)) PokePollers();
}

void QueueCore::PokePollers() const {
  Poke(fd.get(), file, &header().receivers.armed,
       offsetof(Header, shared.poke));
}

// As SlotRing::AnnounceRequeued: the version first, then the flag.
void QueueCore::AnnounceReturned() {
  header().shared.returned.fetch_add(2);
  header().shared.returned.fetch_or(1);
  RingReceivers();
}

void QueueCore::Close() {
  header().shared.closed.store(1);
  header().receivers.bell.RingAll();
  PokePollers();
  header().senders.bell.RingAll();
}

absl::Status QueueCore::EnablePolling() {
  // A forked child makes its own: its parent's is not its to drain.
  if (HasPoller()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<Poller>> created =
      Poller::Create(fd.get(), &header().receivers.armed, park_tick);
  if (!created.ok()) return created.status();
  poller = *std::move(created);
  poller_pid = getpid();
  // There may be messages already; one look too many is no harm.
  poller->Arm();
  PokePollers();
  return absl::OkStatus();
}

bool QueueCore::HasPoller() const {
  return poller != nullptr && poller_pid == getpid();
}

std::string QueueCore::Name(absl::string_view operation) const {
  return absl::StrCat(operation, " mqueue, fd ", fd.get());
}

absl::Status QueueCore::ToStatus(Side side, Outcome outcome) const {
  switch (outcome) {
    case Outcome::kOk:
      return absl::OkStatus();
    case Outcome::kWouldBlock:
      return absl::UnavailableError("");  // never seen by users
    case Outcome::kClosed:
      if (side == Side::kSend) {
        return absl::FailedPreconditionError(
            absl::StrCat(Name("Send to"), ": closed for send"));
      }
      return absl::OutOfRangeError(
          absl::StrCat(Name("Receive from"),
                       ": closed for send, and all messages received"));
    case Outcome::kCorrupt:
      break;
  }
  return absl::DataLossError(absl::StrCat(
      Name("use of"), ": a peer has damaged the segment; create a new queue"));
}

absl::Status QueueCore::TimedOut(Side side, absl::Duration timeout) const {
  return absl::DeadlineExceededError(absl::StrCat(
      side == Side::kSend ? Name("Send to") : Name("Receive from"),
      side == Side::kSend ? ": still full after " : ": still empty after ",
      absl::FormatDuration(timeout)));
}

absl::Status QueueCore::Fenced(Side side) {
  const std::string what =
      side == Side::kSend ? Name("Send to") : Name("Receive from");
  if (absl::Status status = attachment->RenewIfLost(); !status.ok()) {
    return Annotate(status, what);
  }
  return absl::AbortedError(absl::StrCat(
      what,
      ": what was ours has been taken away; did this process close descriptors "
      "that it does not own? Try again"));
}

Stats QueueCore::stats() const {
  Stats stats;
  const auto& counts = header().counts;
  // Slots that were skipped are no messages; those that are not free again yet
  // only the slots know.
  const bool has_skipped = counts.skipped.load() != counts.recycled.load();
  // What is read at different times may not fit together, and be below zero.
  uint64_t sent = 0, received = 0;
  for (const SlotRing& ring : lanes) {
    const SlotRing::Counts counts = ring.Count(has_skipped);
    sent += counts.sent;
    received += counts.received;
    stats.pending += counts.pending;
  }
  for (uint32_t i = 0; is_explicit() && i < geometry.block_count; ++i) {
    const BlockState state = arena.Load(i).state();
    stats.unacked += state == BlockState::kHeld ? 1 : 0;
    stats.pending += state == BlockState::kRedeliver ? 1 : 0;
    received -=
        state == BlockState::kHeld || state == BlockState::kRedeliver ? 1 : 0;
  }
  const uint64_t overwritten = counts.overwritten.load();
  stats.skipped = counts.skipped.load();
  sent -= stats.skipped;
  received -= counts.recycled.load() + overwritten;
  stats.sent = AtLeastZero(sent);
  stats.received = AtLeastZero(received);
  stats.dropped = counts.refused.load() + overwritten;
  stats.redelivered = counts.redelivered.load();
  stats.reaped = counts.reaped.load();
  stats.high_water = counts.high_water.load();
  stats.blocked =
      absl::Nanoseconds(static_cast<int64_t>(counts.blocked_ns.load()));
  return stats;
}

}  // namespace ipc::mqueue
