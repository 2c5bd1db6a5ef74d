// The sending side of a queue.
#include <time.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/copy.h"
#include "ipc/mqueue/queue_core.h"

namespace ipc::mqueue {
namespace {

// Each round takes a message away, and others may send as fast.
constexpr int kMaxDrops = 1 << 16;
// See FullPolicy::kOverwriteOldest.
constexpr absl::Duration kReaderGrace = absl::Milliseconds(2);

Participant OwnerOf(const MessageMemory& memory) {
  return {memory.owner[0], memory.owner[1]};
}
BlockName BlockOf(const MessageMemory& memory) {
  return {memory.block[0], memory.block[1]};
}

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// One receive: the same word may be in several slots at a time.
uint64_t SlowReader(uint32_t lane, const SlotRing::Claim& slot) {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;
  return slot.word.bits() + (uint64_t{lane} * kMaxSlots + slot.slot + 1) * kOdd;
}

}  // namespace

absl::Status QueueCore::CannotSend(size_t size, uint32_t lane) const {
  if (role == Role::kReceive) {
    return absl::PermissionDeniedError(absl::StrCat(
        Name("Send to"), ": this end was opened for Role::kReceive"));
  }
  if (size > geometry.message_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        Name("Send to"), ": message of ", size, " bytes, at most ",
        geometry.message_bytes,
        " fit: create the queue with a larger Options::message_bytes"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      Name("Send to"), ": priority ", lane, ", but the queue has only ",
      geometry.lanes, ": create it with larger Options::priorities"));
}

absl::Status QueueCore::Full(uint32_t lane) const {
  return absl::ResourceExhaustedError(absl::StrCat(
      Name("Send to"), ": all ", geometry.slot_count, " slots of priority ",
      lane, geometry.block_count > 0 ? ", or the arena, are full" : " are full",
      ": receive, wait, or create it with a larger Options::slots",
      geometry.block_count > 0 ? " or arena_bytes" : ""));
}

// What the full policy makes of an attempt that would block. `*dropped` says
// that the message is not to be sent although nothing went wrong; without it,
// there is no message yet that could be dropped.
template <typename Attempt>
absl::Status QueueCore::WithPolicy(uint32_t lane, absl::Duration timeout,
                                   bool may_wait, Lack lack, bool* dropped,
                                   Attempt attempt) {
  if (dropped != nullptr) *dropped = false;
  absl::Status status = TryOnce(Side::kSend, attempt);
  if (!absl::IsUnavailable(status)) return status;
  if (policy() == FullPolicy::kBlock && may_wait) {
    // Only those who have to wait read the clock.
    const int64_t start = NowNs();
    status = Await(Side::kSend, timeout, attempt);
    // Relaxed: a statistic orders nothing.
    header().counts.blocked_ns.fetch_add(static_cast<uint64_t>(NowNs() - start),
                                         std::memory_order_relaxed);
    return status;
  }
  if (policy() == FullPolicy::kOverwriteOldest) {
    status = Overwrite(lane, lack, attempt);
  }
  if (policy() == FullPolicy::kDropNewest && FreeFromTheDead(lack.slot)) {
    status = TryOnce(Side::kSend, attempt);
  }
  if (!absl::IsUnavailable(status)) return status;
  if (policy() == FullPolicy::kBlock || policy() == FullPolicy::kFail ||
      dropped == nullptr) {
    return Full(lane);
  }
  *dropped = true;
  header().counts.refused.fetch_add(1, std::memory_order_relaxed);
  return absl::OkStatus();
}

// Drops messages until the attempt does not block; Unavailable if that does not
// help.
template <typename Attempt>
absl::Status QueueCore::Overwrite(uint32_t lane, Lack lack, Attempt attempt) {
  absl::Status status = absl::UnavailableError("");
  bool in_block = true;  // as if one had just been dropped
  for (int i = 0; absl::IsUnavailable(status) && i < kMaxDrops; ++i) {
    if (lack.slot != nullptr) {
      if (lack.slot->word.state() == SlotState::kReading) {
        // To drop others would not free this slot.
        status = AwaitReader(lane, *lack.slot, attempt);
        if (absl::IsDeadlineExceeded(status)) {
          return absl::UnavailableError("");
        }
        continue;
      }
      if (!DropOldest(lane, &in_block) && !FreeFromTheDead(lack.slot)) break;
    } else {
      // Memory that others have in their hands is not to be had by dropping
      // messages, and what is in slots has none.
      if (in_block && !arena.CouldAllocate(lack.bytes, lane)) break;
      in_block = is_explicit() && DropReturned(lane);
      if (!in_block && !DropOldest(lane, &in_block)) break;
      if (!in_block) continue;
    }
    status = TryOnce(Side::kSend, attempt);
  }
  return status;
}

// The slot that we need is just being received, and about to be free. If it is
// not: DeadlineExceeded, and we need not find that out again and again.
template <typename Attempt>
absl::Status QueueCore::AwaitReader(uint32_t lane, const Claim& slot,
                                    Attempt attempt) {
  const uint64_t reader = SlowReader(lane, slot);
  absl::Status status = absl::DeadlineExceededError("");
  // Relaxed: only a guess.
  if (slow_reader_.load(std::memory_order_relaxed) == reader) return status;
  status = Await(Side::kSend, kReaderGrace, attempt);
  if (!absl::IsDeadlineExceeded(status)) return status;
  absl::Status last = TryOnce(Side::kSend, attempt);
  // Unless it was dead, and is reaped: then its message can be dropped.
  if (absl::IsUnavailable(last) && SlowReader(lane, slot) == reader) {
    slow_reader_.store(reader, std::memory_order_relaxed);
    return status;
  }
  return last;
}

// Nobody who drops messages waits, and so looks for the dead.
bool QueueCore::FreeFromTheDead(const Claim* slot) const {
  return slot != nullptr && slot->word.IsOwned() &&
         attachment->ReapOne(slot->word.owner_index());
}

// Receives a message to nobody: of the same lane, else of one below.
// `*in_block`: and memory of the arena is free again.
bool QueueCore::DropOldest(uint32_t lane, bool* in_block) {
  *in_block = false;
  absl::StatusOr<Participant> self = attachment->Self();
  if (!self.ok()) return false;
  for (uint32_t n = 0; n <= lane; ++n) {
    Taken taken = {.self = *self, .has_slot = true, .lane = lane - n};
    if (lanes[taken.lane].BeginReceive(*self, &taken.claim) != Outcome::kOk) {
      continue;
    }
    // A message that cannot be read is dropped just as well.
    if (Resolve(&taken).ok() && CommitSlot(taken).ok() && taken.in_block &&
        arena.FreeHeld(taken.self, taken.block)) {
      *in_block = true;
      RingForRoom();
    }
    // Relaxed: a statistic orders nothing.
    header().counts.overwritten.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  return false;
}

// The same of what was to be delivered again, and is in no slot.
bool QueueCore::DropReturned(uint32_t lane) {
  for (uint32_t i = 0; i < geometry.block_count; ++i) {
    const BlockWord word = arena.Load(i);
    if (word.state() != BlockState::kRedeliver || arena.lane(i) > lane ||
        !arena.FreeReturned({i, word.generation()})) {
      continue;
    }
    // Relaxed: a statistic orders nothing.
    header().counts.overwritten.fetch_add(1, std::memory_order_relaxed);
    RingForRoom();
    return true;
  }
  return false;
}

absl::Status QueueCore::ClaimSlot(const SendOptions& options, bool may_wait,
                                  bool* dropped, Claim* claim) {
  SlotRing& ring = lanes[options.priority];
  Participant self;
  if (attachment->GetSelf(&self) &&
      ring.BeginSend(self, claim) == Outcome::kOk) {
    *dropped = false;
    NotePeer(Side::kSend, options.priority, *claim);
    return absl::OkStatus();
  }
  absl::Status status =
      WithPolicy(options.priority, options.timeout, may_wait, {.slot = claim},
                 dropped, [&](Participant self, Blocker* blocker) {
                   const Outcome outcome = ring.BeginSend(self, claim);
                   if (outcome == Outcome::kWouldBlock) {
                     *blocker = {.kind = Blocker::kSlot,
                                 .lane = options.priority,
                                 .claim = *claim};
                   }
                   return outcome;
                 });
  if (status.ok() && !*dropped) NotePeer(Side::kSend, options.priority, *claim);
  return status;
}

absl::Status QueueCore::ClaimBlock(size_t bytes, uint32_t lane,
                                   absl::Duration timeout, bool may_wait,
                                   bool* dropped, BlockName* block,
                                   Participant* owner) {
  const auto allocate = [&](Participant self) {
    if (lanes[lane].IsClosed()) return Outcome::kClosed;
    *owner = self;
    return arena.Allocate(self, bytes, block) ? Outcome::kOk
                                              : Outcome::kWouldBlock;
  };
  Participant self;
  if (attachment->GetSelf(&self) && allocate(self) == Outcome::kOk) {
    if (dropped != nullptr) *dropped = false;
    return absl::OkStatus();
  }
  return WithPolicy(lane, timeout, may_wait, {.bytes = bytes}, dropped,
                    [&](Participant self, Blocker* blocker) {
                      blocker->kind = Blocker::kArena;
                      return allocate(self);
                    });
}

// After a message was sent at this position, of a lane that may be nearly full:
// FollowStream's counterpart, lets its receivers go ahead for a moment if there
// are any. To read the head takes its line from them, so it is done once in a
// few messages.
void QueueCore::StayApart(uint32_t lane, uint64_t position) {
  const SlotRing& ring = lanes[lane];
  const uint64_t apart = ring.slots_apart();
  const auto is_near = [&](uint64_t head) {
    return head + geometry.slot_count <= position + 2 * apart;
  };
  std::atomic<uint64_t>& head_seen = head_seen_[lane];
  const uint64_t seen = head_seen.load(std::memory_order_relaxed);
  if (!is_near(seen)) return;
  uint64_t head = ring.head();
  // Who overwrites moves the head itself.
  if (head != seen && is_near(head) &&
      policy() != FullPolicy::kOverwriteOldest && IsElsewhere(Side::kSend)) {
    Pause(static_cast<int>(apart));
    head = ring.head();
  }
  head_seen.store(head, std::memory_order_relaxed);
}

// The depth may be larger than ever only if it is from an old head.
void QueueCore::NoteDepth(uint32_t lane, uint64_t position) {
  const auto depth_from = [&](uint64_t head) {
    const uint64_t end = position + kLookEvery;
    return std::min<uint64_t>(end - std::min(head, end), geometry.slot_count);
  };
  // Relaxed throughout: a statistic orders nothing.
  const uint64_t highest = high_water_seen_.load(std::memory_order_relaxed);
  std::atomic<uint64_t>& head_seen = head_seen_[lane];
  if (depth_from(head_seen.load(std::memory_order_relaxed)) <= highest) return;
  const uint64_t head = lanes[lane].head();
  head_seen.store(head, std::memory_order_relaxed);
  const uint64_t depth = depth_from(head);
  if (depth <= highest) return;
  std::atomic<uint64_t>& high_water = header().counts.high_water;
  uint64_t seen = high_water.load(std::memory_order_relaxed);
  while (seen < depth && !high_water.compare_exchange_weak(
                             seen, depth, std::memory_order_relaxed)) {
  }
  high_water_seen_.store(std::max(seen, depth), std::memory_order_relaxed);
}

absl::Status QueueCore::Send(absl::Span<const std::byte> message,
                             const SendOptions& options, bool may_wait) {
  if (absl::Status status = CheckSend(message.size(), options.priority);
      !status.ok()) {
    return status;
  }
  bool dropped = false;
  if (!is_explicit() && message.size() <= geometry.inline_bytes) {
    Claim claim;
    absl::Status status = ClaimSlot(options, may_wait, &dropped, &claim);
    if (!status.ok() || dropped) return status;
    SlotRing& ring = lanes[options.priority];
    ring.Fill(claim, message, options.type);
    if (!ring.CommitSend(claim)) return Fenced(Side::kSend);
    RingReceivers();
    AfterSend(options.priority, claim.position);
    return absl::OkStatus();
  }
  const Deadline deadline = Deadline::After(options.timeout);
  BlockName block = {};
  Participant owner = {};
  absl::Status status =
      ClaimBlock(message.size(), options.priority, options.timeout, may_wait,
                 &dropped, &block, &owner);
  if (!status.ok() || dropped) return status;
  CopyBytes(arena.data(block), message.data(), message.size());
  SendOptions rest = options;
  if (!deadline.is_infinite()) rest.timeout = deadline.Remaining();
  bool consumed = false;
  status = SendBlock(block, owner, message.size(), rest, may_wait, &consumed);
  if (!consumed && arena.FreeLoaned(owner, block)) RingForRoom();
  return status;
}

// `*consumed` says that the block is not the caller's any more.
absl::Status QueueCore::SendBlock(BlockName block, Participant owner,
                                  size_t size, const SendOptions& options,
                                  bool may_wait, bool* consumed) {
  bool dropped = false;
  Claim claim;
  absl::Status status = ClaimSlot(options, may_wait, &dropped, &claim);
  if (!status.ok() || dropped) return status;
  SlotRing& ring = lanes[options.priority];
  arena.Describe(block, size, options.type,
                 static_cast<uint16_t>(options.priority));
  ring.FillName(claim, block);
  *consumed = true;
  // From QUEUED on the block is the slot's: if we die now, the reaper of the
  // slot frees it.
  const bool enqueued = arena.Enqueue(owner, block);
  // Also when the block was taken away but not the slot, as only a rogue does:
  // the receiver drops it, and the queue goes on.
  const bool committed = ring.CommitSend(claim);
  if (!enqueued || !committed) {
    if (!committed && arena.FreeQueued(block)) RingForRoom();
    return Fenced(Side::kSend);
  }
  RingReceivers();
  AfterSend(options.priority, claim.position);
  return absl::OkStatus();
}

absl::StatusOr<Loan> QueueCore::Lend(size_t bytes, absl::Duration timeout,
                                     bool may_wait) {
  if (absl::Status status = CheckSend(bytes, 0); !status.ok()) return status;
  Loan loan;
  MessageMemory& memory = loan.memory_;
  if (!is_explicit() && bytes <= geometry.inline_bytes) {
    memory.core = this;
    memory.data = memory.small.data();
    memory.size = bytes;
    return loan;
  }
  BlockName block = {};
  Participant owner = {};
  absl::Status status =
      ClaimBlock(bytes, 0, timeout, may_wait, nullptr, &block, &owner);
  if (!status.ok()) return status;
  memory.core = this;
  memory.data = arena.data(block);
  memory.size = bytes;
  Own(&memory, block, owner);
  return loan;
}

absl::Status QueueCore::SendLoan(Loan* loan, const SendOptions& options) {
  MessageMemory& memory = loan->memory_;
  if (memory.core != this) {
    return absl::InvalidArgumentError(absl::StrCat(
        Name("Send to"), memory.core == nullptr
                             ? ": the loan was sent already, or moved from"
                             : ": the loan is another queue's"));
  }
  absl::Status status;
  bool consumed = false;
  if (!memory.in_block) {
    status = Send(loan->data(), options, true);
    consumed = status.ok();
  } else {
    if (status = CheckSend(memory.size, options.priority); !status.ok()) {
      return status;
    }
    if (!IsOwn(memory)) return NotOwn("Send to");
    status = SendBlock(BlockOf(memory), OwnerOf(memory), memory.size, options,
                       true, &consumed);
    // Dropped by the full policy: it is as if it had been sent.
    if (status.ok() && !consumed) Unlend(&memory);
  }
  if (consumed) {
    memory.core = nullptr;
    memory.data = nullptr;
    memory.size = 0;
  }
  return status;
}

void QueueCore::Unlend(MessageMemory* memory) {
  if (memory->in_block && IsOwn(*memory) &&
      arena.FreeLoaned(OwnerOf(*memory), BlockOf(*memory))) {
    RingForRoom();
  }
  memory->core = nullptr;
  memory->data = nullptr;
  memory->size = 0;
}

}  // namespace ipc::mqueue
