// What a Queue consists of: waiting (queue_core.cc), sending (queue_send.cc)
// and receiving (queue_receive.cc). Not for users: here so that tests can stop
// half-way through an operation.
#ifndef IPC_MQUEUE_QUEUE_CORE_H_
#define IPC_MQUEUE_QUEUE_CORE_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/deadline.h"
#include "ipc/base/memory.h"
#include "ipc/base/participants.h"
#include "ipc/base/spin_wait.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/doorbell.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/poller.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"

namespace ipc::mqueue {

class QueueCore {
 public:
  using Claim = SlotRing::Claim;
  using Outcome = SlotRing::Outcome;
  enum class Side { kSend, kReceive };

  // What is being received, from the claim of its slot on. A block that comes
  // from no slot (REDELIVER) has none.
  struct Taken {
    Participant self = {};
    bool has_slot = false;
    uint32_t lane = 0;
    Claim claim = {};
    bool in_block = false;
    BlockName block = {};
    absl::Span<const std::byte> data = {};
    uint16_t type = 0;
    bool redelivered = false;
  };
  // What stands in the way of an operation that would block.
  struct Blocker {
    enum { kNothing, kSlot, kBlock, kArena } kind = kNothing;
    uint32_t lane = 0;
    Claim claim = {};    // kSlot
    uint32_t owner = 0;  // kBlock: index of a participant

    bool HasOwner() const { return kind == kSlot || kind == kBlock; }
  };

  QueueCore(UniqueFd segment_fd, Mapping segment, const Geometry& geometry,
            Role role);
  ~QueueCore();
  absl::Status Attach();

  // Sending. `lane` is SendOptions::priority.
  absl::Status CheckSend(size_t size, uint32_t lane) const {
    if (size <= geometry.message_bytes && lane < geometry.lanes &&
        role != Role::kReceive) {
      return absl::OkStatus();
    }
    return CannotSend(size, lane);
  }
  absl::Status Send(absl::Span<const std::byte> message,
                    const SendOptions& options, bool may_wait);
  absl::Status SendLoan(Loan* loan, const SendOptions& options);
  absl::StatusOr<Loan> Lend(size_t bytes, absl::Duration timeout,
                            bool may_wait);

  // Receiving. Unavailable, if it may not wait and nothing is there. What was
  // taken is to be finished by one of the others.
  absl::Status Take(absl::Duration timeout, bool may_wait, Taken* taken);
  absl::StatusOr<size_t> ReceiveInto(absl::Span<std::byte> buffer,
                                     absl::Duration timeout);
  absl::StatusOr<std::string> FinishAsString(const Taken& taken);
  absl::StatusOr<Message> FinishAsMessage(const Taken& taken);
  absl::StatusOr<std::vector<Message>> ReceiveBatch(size_t max,
                                                    absl::Duration timeout);
  absl::Status TaskDone();
  absl::Status Join(absl::Duration timeout);

  // For Loan and Message.
  void Unlend(MessageMemory* memory);
  absl::Status Ack(MessageMemory* memory);
  absl::Status GiveBack(MessageMemory* memory);
  void Drop(MessageMemory* memory);

  void Close();
  absl::Status EnablePolling();
  bool HasPoller() const;
  Stats stats() const;

  bool is_explicit() const {
    return geometry.delivery == static_cast<uint32_t>(Delivery::kExplicitAck);
  }
  FullPolicy policy() const {
    return static_cast<FullPolicy>(geometry.full_policy);
  }
  Header& header() const { return *reinterpret_cast<Header*>(mapping.data()); }

  // Invariant: the members below use those above.
  const UniqueFd fd;
  const FileIdentity file;
  const Mapping mapping;
  const Geometry geometry;
  const Role role;
  // Whether we may receive, and everything is in the slots of one lane.
  const bool receives_from_slots;
  std::vector<SlotRing> lanes;
  Arena arena;
  const ParticipantTable participants;
  // By Side: what its waits have taught, and where its peer ran when last seen,
  // or -1. Relaxed: a guess that orders nothing.
  SpinHistory spin_history[2];
  std::atomic<int> peer_cpu[2] = {-1, -1};
  // At most kStream. Relaxed: a guess that orders nothing.
  std::atomic<uint32_t> received_in_a_row{0};
  // CLOCK_MONOTONIC_COARSE, in milliseconds, of the last look for the dead.
  // Relaxed: looking once too often or too late is no harm.
  std::atomic<int64_t> last_reap_ms;
  // A receiver that never waits looks at the clock, which takes some 10 ns, at
  // each position that has none of these bits.
  const uint64_t busy_mask;
  // Shorter in tests, before the first call.
  absl::Duration park_tick = Queue::kParkTick;
  std::unique_ptr<Attachment> attachment;
  std::unique_ptr<Poller> poller;  // after EnablePolling, by poller_pid
  pid_t poller_pid = -1;

 private:
  // Who received so many messages without waiting is in a stream.
  static constexpr uint32_t kStream = 2;
  // A sender looks at the head once in so many messages at most.
  static constexpr uint64_t kLookEvery = 8;

  // What plain receives have taken.
  struct Unacked {
    BlockName block;
    Participant self;
  };
  struct UnackedList {
    const uint32_t fork_depth = Attachment::fork_depth();
    std::mutex lock;
    std::deque<Unacked> messages;  // guarded by lock; oldest first
  };

  // Tries until it does not say kWouldBlock: `attempt(self, &blocker)`. The
  // caller has tried already, or seen that it is in vain; we wait for a moment
  // first.
  template <typename Attempt>
  absl::Status Await(Side side, absl::Duration timeout, Attempt attempt);
  template <typename Attempt>
  absl::Status TryOnce(Side side, Attempt attempt);
  Doorbell& BellOf(Side side) const {
    return side == Side::kSend ? header().senders.bell
                               : header().receivers.bell;
  }
  bool MayContinue(Side side) const;
  absl::Status ToStatus(Side side, Outcome outcome) const;
  absl::Status TimedOut(Side side, absl::Duration timeout) const;
  absl::Status Fenced(Side side);
  bool LooksDamaged() const;
  // This process's own.
  UnackedList& unacked();
  // Whether it is this process that has the block, and not its parent.
  static bool IsOwn(const MessageMemory& memory) {
    return memory.fork_depth == Attachment::fork_depth();
  }
  absl::Status NotOwn(absl::string_view operation) const;
  static void Own(MessageMemory* memory, BlockName block, Participant owner) {
    memory->in_block = true;
    memory->block[0] = block.index;
    memory->block[1] = block.generation;
    memory->owner[0] = owner.index;
    memory->owner[1] = owner.epoch;
    memory->fork_depth = Attachment::fork_depth();
  }
  // After each claim.
  void NotePeer(Side side, uint32_t lane, const Claim& claim);
  void Prefetch(Side side, const SlotRing& ring, uint32_t lane,
                const Claim& claim);
  bool IsStream() const {
    return received_in_a_row.load(std::memory_order_relaxed) >= kStream;
  }
  void EndStream() {
    // Who polls need not write each time.
    if (received_in_a_row.load(std::memory_order_relaxed) != 0) {
      received_in_a_row.store(0, std::memory_order_relaxed);
    }
  }
  bool FollowStream(uint32_t lane);
  // Whether to look at the next slot before waiting; a hint. REQUIRES:
  // receives_from_slots.
  bool MayTakeNow() {
    return IsStream() ? FollowStream(0) : lanes[0].HintsAtMessage();
  }
  bool IsElsewhere(Side side) const;
  void ClearBlocker(const Blocker& blocker);
  void PokePollers() const;
  // Who takes part, now: a call that waits may come to be another one, if this
  // process had lost its place.
  absl::Status CurrentSelf(Participant* self) {
    if (attachment->GetSelf(self)) return absl::OkStatus();
    return AttachAnew(self);
  }
  absl::Status AttachAnew(Participant* self) const;
  // Looks for the dead; the sweeps end soon after the deadline.
  void ReapAll(Deadline deadline = Deadline::Infinite());
  // Whether the last look was a park tick ago.
  bool IsReapDue() const;
  void LookForTheDead(uint64_t position) {
    if ((position & busy_mask) == 0 && IsReapDue()) ReapAll();
  }
  void Sweep(Participant dead);
  void RingReceivers();
  // After something was freed: those who wait at the end, too, for nobody to
  // have a message that could come back.
  void RingAtEnd() {
    if (header().shared.closed.load() != 0) RingReceiversAtEnd();
  }
  void RingReceiversAtEnd();
  void RingForRoom() {
    lanes[0].RingForRoom();
    RingAtEnd();
  }
  void AnnounceReturned();

  // What a sender lacks: a slot, or memory.
  struct Lack {
    const Claim* slot = nullptr;  // what was seen there
    uint64_t bytes = 0;           // otherwise
  };
  template <typename Attempt>
  absl::Status WithPolicy(uint32_t lane, absl::Duration timeout, bool may_wait,
                          Lack lack, bool* dropped, Attempt attempt);
  template <typename Attempt>
  absl::Status Overwrite(uint32_t lane, Lack lack, Attempt attempt);
  template <typename Attempt>
  absl::Status AwaitReader(uint32_t lane, const Claim& slot, Attempt attempt);
  absl::Status ClaimSlot(const SendOptions& options, bool may_wait,
                         bool* dropped, Claim* claim);
  absl::Status ClaimBlock(size_t bytes, uint32_t lane, absl::Duration timeout,
                          bool may_wait, bool* dropped, BlockName* block,
                          Participant* owner);
  absl::Status SendBlock(BlockName block, Participant owner, size_t size,
                         const SendOptions& options, bool may_wait,
                         bool* consumed);
  bool DropOldest(uint32_t lane, bool* in_block);
  bool DropReturned(uint32_t lane);
  bool FreeFromTheDead(const Claim* slot) const;
  void AfterSend(uint32_t lane, uint64_t position) {
    if (position % kLookEvery != 0) return;
    NoteDepth(lane, position);
    StayApart(lane, position);
  }
  void NoteDepth(uint32_t lane, uint64_t position);
  void StayApart(uint32_t lane, uint64_t position);
  absl::Status Full(uint32_t lane) const;
  absl::Status CannotSend(size_t size, uint32_t lane) const;

  Outcome TryTake(Participant self, Taken* taken, Blocker* blocker);
  absl::Status TakeSlowly(absl::Duration timeout, bool may_wait, Taken* taken);
  bool TakeReturned(Participant self, Taken* taken);
  bool TakeReturned(Participant self, BlockName block, Taken* taken);
  Outcome AtEnd(Participant self, Taken* taken, Blocker* blocker);
  absl::Status Resolve(Taken* taken);
  absl::Status CommitSlot(const Taken& taken);
  absl::StatusOr<size_t> ReceiveSlowly(absl::Span<std::byte> buffer,
                                       absl::Duration timeout);
  absl::StatusOr<size_t> ReceiveClaimed(Participant self, const Claim& claim,
                                        absl::Span<std::byte> buffer);
  absl::StatusOr<size_t> FinishInto(const Taken& taken,
                                    absl::Span<std::byte> buffer);
  absl::Status FinishCopied(const Taken& taken);
  template <typename IsDone>
  absl::Status AwaitDone(Deadline deadline, absl::Duration timeout,
                         IsDone is_done);

  std::string Name(absl::string_view operation) const;

  // The last receive, as SlowReader has it, that kept an overwriting sender
  // waiting in vain. Relaxed: only a guess.
  std::atomic<uint64_t> slow_reader_{0};

  // Owned; a forked child makes its own, as another thread may have been at
  // that of its parent.
  std::atomic<UnackedList*> unacked_;
  // The high-water mark as last seen. Relaxed: a statistic.
  std::atomic<uint64_t> high_water_seen_{0};
  // By lane: up to where to receive without looking at the tail, and the head
  // as last seen. Relaxed: guesses that order nothing.
  std::atomic<uint64_t> stream_end_[kMaxLanes] = {};
  std::atomic<uint64_t> head_seen_[kMaxLanes] = {};
};

// Of every message, so without a call.

inline void QueueCore::NotePeer(Side side, uint32_t lane, const Claim& claim) {
  std::atomic<int>& noted = peer_cpu[static_cast<int>(side)];
  SlotRing& ring = lanes[lane];
  const int cpu = ring.ExchangeCpu(claim);
  // Threads that share this object need not share a written cache line.
  if (noted.load(std::memory_order_relaxed) != cpu) {
    noted.store(cpu, std::memory_order_relaxed);
  }
  Prefetch(side, ring, lane, claim);
}

// Only what the other side is not just using: its lines would go back and
// forth.
inline void QueueCore::Prefetch(Side side, const SlotRing& ring, uint32_t lane,
                                const Claim& claim) {
  const uint64_t later = claim.position + ring.prefetch_slots();
  if (side == Side::kReceive) {
    const uint32_t in_a_row = received_in_a_row.load(std::memory_order_relaxed);
    if (in_a_row < kStream) {
      received_in_a_row.store(in_a_row + 1, std::memory_order_relaxed);
      return;
    }
    if (later < stream_end_[lane].load(std::memory_order_relaxed)) {
      ring.PrefetchAfter(claim);
    }
  } else if (later + ring.slots_apart() <
             head_seen_[lane].load(std::memory_order_relaxed) +
                 geometry.slot_count) {
    ring.PrefetchAfter(claim);
  }
}

// Whether the peer of this side was last seen on another CPU than this one.
inline bool QueueCore::IsElsewhere(Side side) const {
  return peer_cpu[static_cast<int>(side)].load(std::memory_order_relaxed) !=
         CurrentCpu();
}

inline void QueueCore::RingReceivers() {
  auto& receivers = header().receivers;
  receivers.bell.Ring();
  if (IsArmed(receivers.armed)) PokePollers();
}

// The template has to be seen by those who send and by those who receive.
template <typename Attempt>
absl::Status QueueCore::Await(Side side, absl::Duration timeout,
                              Attempt attempt) {
  Participant self;
  if (auto status = CurrentSelf(&self); !status.ok()) return status;
  // Who got several in a row will get several again, if it lets the sender go
  // ahead for a moment; who got one waits for an answer.
  bool in_a_row = false;
  if (side == Side::kReceive) {
    in_a_row = IsStream();
    EndStream();
  }
  const Deadline deadline = Deadline::After(timeout);
  // Who waits again and again, each time for a moment, would never get further
  // than the loop below. Nothing is lost by it: we have to wait anyway.
  if (IsReapDue()) ReapAll(deadline);
  Blocker blocker;
  if (timeout > absl::ZeroDuration()) {
    const int i = static_cast<int>(side);
    SpinWait spin(&spin_history[i], peer_cpu[i].load(std::memory_order_relaxed),
                  in_a_row ? SpinWait::Expect::kMore : SpinWait::Expect::kOne);
    while (spin.Next()) {
      if (side == Side::kSend && blocker.kind == Blocker::kSlot &&
          spin.has_just_begun() && !lanes[blocker.lane].MaySendMany()) {
        continue;
      }
      if (in_a_row && spin.has_just_begun() && receives_from_slots &&
          !FollowStream(0)) {
        continue;
      }
      // To look at all blocks again is in vain until one has been freed.
      if (blocker.kind == Blocker::kArena && !arena.HasHint()) continue;
      if (!attachment->GetSelf(&self)) break;
      const Outcome outcome = attempt(self, &blocker);
      if (outcome == Outcome::kWouldBlock) continue;
      spin.Succeeded();
      return ToStatus(side, outcome);
    }
  }
  // From here on the way is short: where two share a CPU, each step of it is
  // taken with caches and branch predictors that are the other one's.
  Doorbell& bell = BellOf(side);
  bool is_tick = false;
  for (bool slept = false;; slept = true) {
    // From here on whoever commits something for us knows that we wait.
    const uint32_t ticket = bell.Announce();
    if (auto status = CurrentSelf(&self); !status.ok()) return status;
    blocker = {};
    Outcome outcome = attempt(self, &blocker);
    if (outcome == Outcome::kWouldBlock) {
      // Nobody may be left to ring: one may have died between its commit and
      // its Ring, or holding what we wait for. Also where others ring so often
      // that no sleep ever lasts for a tick.
      const bool is_due = is_tick || IsReapDue();
      if (is_due) ReapAll(deadline);
      if (is_due || (!slept && blocker.HasOwner())) {
        ClearBlocker(blocker);
        if (auto status = CurrentSelf(&self); !status.ok()) return status;
        blocker = {};
        outcome = attempt(self, &blocker);
      }
    }
    if (outcome != Outcome::kWouldBlock) {
      // Whoever woke us may have made room for more than one.
      if (slept && MayContinue(side)) bell.Ring();
      return ToStatus(side, outcome);
    }
    if (deadline.HasPassed()) {
      return LooksDamaged() ? ToStatus(side, Outcome::kCorrupt)
                            : TimedOut(side, timeout);
    }
    const Deadline tick = Deadline::After(park_tick);
    is_tick = !bell.Sleep(ticket, Deadline::Earlier(tick, deadline));
    if (is_tick && LooksDamaged()) return ToStatus(side, Outcome::kCorrupt);
  }
}

template <typename Attempt>
absl::Status QueueCore::TryOnce(Side side, Attempt attempt) {
  Participant self;
  if (auto status = CurrentSelf(&self); !status.ok()) return status;
  Blocker blocker;
  Outcome outcome = attempt(self, &blocker);
  // Where everybody polls, nobody sleeps, and the polls have to look for the
  // dead.
  if (outcome == Outcome::kWouldBlock && IsReapDue()) {
    ReapAll();
    ClearBlocker(blocker);
    if (auto status = CurrentSelf(&self); !status.ok()) return status;
    outcome = attempt(self, &blocker);
  }
  return ToStatus(side, outcome);
}

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_QUEUE_CORE_H_
