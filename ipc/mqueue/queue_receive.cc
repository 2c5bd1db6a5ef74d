// The receiving side of a queue, acknowledgement, and Join.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/copy.h"
#include "ipc/base/current_cpu.h"
#include "ipc/base/spin_wait.h"
#include "ipc/mqueue/queue_core.h"

namespace ipc::mqueue {
namespace {

Participant OwnerOf(const MessageMemory& memory) {
  return {memory.owner[0], memory.owner[1]};
}
BlockName BlockOf(const MessageMemory& memory) {
  return {memory.block[0], memory.block[1]};
}

void Forget(MessageMemory* memory) {
  memory->core = nullptr;
  memory->data = nullptr;
  memory->size = 0;
}

}  // namespace

bool QueueCore::TakeReturned(Participant self, BlockName block, Taken* taken) {
  if (!arena.TakeReturned(self, block)) return false;
  *taken = {
      .self = self, .in_block = true, .block = block, .redelivered = true};
  // Relaxed: a statistic orders nothing.
  header().counts.redelivered.fetch_add(1, std::memory_order_relaxed);
  return true;
}

bool QueueCore::TakeReturned(Participant self, Taken* taken) {
  std::atomic<uint64_t>& returned = header().shared.returned;
  uint64_t version = returned.load();
  if ((version & 1) == 0) return false;
  for (uint32_t i = 0; i < geometry.block_count; ++i) {
    const BlockWord word = arena.Load(i);
    if (word.state() == BlockState::kRedeliver &&
        TakeReturned(self, {i, word.generation()}, taken)) {
      return true;
    }
  }
  // Nothing left. Fails if more came while we looked.
  returned.compare_exchange_strong(version, version & ~uint64_t{1});
  return false;
}

QueueCore::Outcome QueueCore::TryTake(Participant self, Taken* taken,
                                      Blocker* blocker) {
  if (is_explicit() && TakeReturned(self, taken)) return Outcome::kOk;
  size_t closed = 0;
  for (uint32_t lane = geometry.lanes; lane-- > 0;) {
    Claim claim;
    switch (lanes[lane].BeginReceive(self, &claim)) {
      case Outcome::kOk:
        taken->self = self;
        taken->has_slot = true;
        taken->lane = lane;
        taken->claim = claim;
        taken->redelivered = claim.redelivered;
        return Outcome::kOk;
      case Outcome::kWouldBlock:
        if (claim.word.IsOwned()) {
          *blocker = {.kind = Blocker::kSlot, .lane = lane, .claim = claim};
        }
        break;
      case Outcome::kClosed:
        ++closed;
        break;
      case Outcome::kCorrupt:
        return Outcome::kCorrupt;
    }
  }
  if (closed < geometry.lanes) return Outcome::kWouldBlock;
  return is_explicit() ? AtEnd(self, taken, blocker) : Outcome::kClosed;
}

// Closed, and all slots are empty for good. What others have not acknowledged
// may come back. What we have not, nobody else will tell us about.
//
// Each word is looked at once, and decides: a message goes to and fro between
// HELD and REDELIVER until it is done with, and whoever returned it may have
// been stopped or killed before it set the flag.
QueueCore::Outcome QueueCore::AtEnd(Participant self, Taken* taken,
                                    Blocker* blocker) {
  bool is_open = false;
  for (uint32_t i = 0; i < geometry.block_count; ++i) {
    const BlockWord word = arena.Load(i);
    if (word.state() == BlockState::kRedeliver) {
      if (TakeReturned(self, {i, word.generation()}, taken)) {
        return Outcome::kOk;
      }
      is_open = true;
    } else if (word.state() == BlockState::kHeld && !word.IsOwnedBy(self)) {
      *blocker = {.kind = Blocker::kBlock, .owner = word.owner_index()};
      is_open = true;
    }
  }
  return is_open ? Outcome::kWouldBlock : Outcome::kClosed;
}

absl::Status QueueCore::Take(absl::Duration timeout, bool may_wait,
                             Taken* taken) {
  if (role == Role::kSend) {
    return absl::PermissionDeniedError(absl::StrCat(
        Name("Receive from"), ": this end was opened for Role::kSend"));
  }
  Participant self;
  Blocker blocker;
  if (attachment->GetSelf(&self) && (!receives_from_slots || MayTakeNow()) &&
      TryTake(self, taken, &blocker) == Outcome::kOk) {
    if (taken->has_slot) {
      NotePeer(Side::kReceive, taken->lane, taken->claim);
    }
    // Of what is delivered again, zero.
    LookForTheDead(taken->claim.position);
    return Resolve(taken);
  }
  return TakeSlowly(timeout, may_wait, taken);
}

// After a first attempt was in vain, or did not seem worth while.
absl::Status QueueCore::TakeSlowly(absl::Duration timeout, bool may_wait,
                                   Taken* taken) {
  if (!may_wait) EndStream();
  const auto attempt = [&](Participant self, Blocker* blocker) {
    return TryTake(self, taken, blocker);
  };
  absl::Status status = may_wait ? Await(Side::kReceive, timeout, attempt)
                                 : TryOnce(Side::kReceive, attempt);
  if (absl::IsUnavailable(status) && HasPoller()) {
    // From here on whoever commits something makes the descriptor readable.
    poller->Arm();
    status = TryOnce(Side::kReceive, attempt);
  }
  if (!status.ok()) return status;
  if (taken->has_slot) {
    NotePeer(Side::kReceive, taken->lane, taken->claim);
  }
  return Resolve(taken);
}

// Finds the message of a claim. DataLoss if there is none, and then the slot is
// free again.
absl::Status QueueCore::Resolve(Taken* taken) {
  if (taken->has_slot) {
    const SlotRing::Message message = lanes[taken->lane].Contents(taken->claim);
    taken->in_block = message.in_block;
    taken->block = message.block;
    taken->data = {const_cast<std::byte*>(message.data.data()),
                   message.data.size()};
    taken->type = message.type;
  }
  const bool held = taken->in_block &&
                    (!taken->has_slot || arena.Hold(taken->self, taken->block));
  if (held) {
    const Arena::Message message = arena.Contents(taken->block);
    taken->data = message.data;
    taken->type = message.type;
  }
  if (taken->data.data() != nullptr) return absl::OkStatus();
  if (held) arena.FreeHeld(taken->self, taken->block);
  if (taken->has_slot && !lanes[taken->lane].CommitReceive(taken->claim)) {
    return Fenced(Side::kReceive);
  }
  RingForRoom();
  return absl::DataLossError(absl::StrCat(
      Name("Receive from"),
      ": dropped a message that a peer has damaged: its length or its block is "
      "not what it can be"));
}

// Until this our death would pass the message on; with automatic
// acknowledgement it is ours alone from here on.
absl::Status QueueCore::CommitSlot(const Taken& taken) {
  if (!taken.has_slot) return absl::OkStatus();
  SlotRing& ring = lanes[taken.lane];
  if (!taken.in_block) ring.OwnLines(taken.claim, taken.data.size());
  if (!ring.CommitReceive(taken.claim)) {
    return Fenced(Side::kReceive);
  }
  RingAtEnd();
  return absl::OkStatus();
}

// After the message was copied by a plain Receive.
absl::Status QueueCore::FinishCopied(const Taken& taken) {
  if (absl::Status status = CommitSlot(taken); !status.ok()) return status;
  if (!taken.in_block) return absl::OkStatus();
  if (is_explicit()) {
    UnackedList& list = unacked();
    const std::lock_guard<std::mutex> guard(list.lock);
    list.messages.push_back({taken.block, taken.self});
    return absl::OkStatus();
  }
  if (arena.FreeHeld(taken.self, taken.block)) RingForRoom();
  return absl::OkStatus();
}

absl::StatusOr<std::string> QueueCore::FinishAsString(const Taken& taken) {
  std::string message(reinterpret_cast<const char*>(taken.data.data()),
                      taken.data.size());
  if (absl::Status status = FinishCopied(taken); !status.ok()) return status;
  return message;
}

// Whether the tail says that there is more, for a receiver in a stream. It is
// looked at only when all that was seen there has been received: to look at a
// slot that is just being written, or at the tail each time, would take the
// line from the sender, so that both wait for each message's lines. Near the
// tail we let the sender go ahead for a moment; if it does, the last few are
// left for the next time. A hint, as the tail may lag behind.
bool QueueCore::FollowStream(uint32_t lane) {
  const SlotRing& ring = lanes[lane];
  std::atomic<uint64_t>& stream_end = stream_end_[lane];
  const uint64_t head = ring.head();
  if (head < stream_end.load(std::memory_order_relaxed)) return true;
  const uint64_t apart = ring.slots_apart();
  uint64_t tail = ring.tail();
  bool goes_on = true;
  if (head < tail && tail < head + 2 * apart && IsElsewhere(Side::kReceive)) {
    Pause(static_cast<int>(apart));
    goes_on = ring.tail() != tail;
    tail = ring.tail();
    // It waits for us, perhaps.
    if (!goes_on) EndStream();
  }
  const uint64_t end = goes_on && head + apart < tail ? tail - apart : tail;
  stream_end.store(end, std::memory_order_relaxed);
  ring.PrefetchFrom(head, end);
  return head < end;
}

absl::StatusOr<size_t> QueueCore::ReceiveInto(absl::Span<std::byte> buffer,
                                              absl::Duration timeout) {
  // The usual case, in one go: a message is there, in its slot.
  Participant self;
  if (receives_from_slots && attachment->GetSelf(&self) && MayTakeNow()) {
    SlotRing& ring = lanes[0];
    Claim claim;
    if (ring.BeginReceive(self, &claim) == Outcome::kOk) {
      NotePeer(Side::kReceive, 0, claim);
      const absl::Span<const std::byte> message = ring.Contents(claim).data;
      if (message.data() == nullptr || message.size() > buffer.size()) {
        return ReceiveClaimed(self, claim, buffer);
      }
      CopyBytes(buffer.data(), message.data(), message.size());
      ring.OwnLines(claim, message.size());
      if (!ring.CommitReceive(claim)) return Fenced(Side::kReceive);
      RingAtEnd();
      LookForTheDead(claim.position);
      return message.size();
    }
  }
  return ReceiveSlowly(buffer, timeout);
}

absl::StatusOr<size_t> QueueCore::ReceiveSlowly(absl::Span<std::byte> buffer,
                                                absl::Duration timeout) {
  Taken taken;
  absl::Status status = receives_from_slots
                            ? TakeSlowly(timeout, /*may_wait=*/true, &taken)
                            : Take(timeout, /*may_wait=*/true, &taken);
  if (!status.ok()) return status;
  return FinishInto(taken, buffer);
}

// What does not fit, or is in a block.
absl::StatusOr<size_t> QueueCore::ReceiveClaimed(Participant self,
                                                 const Claim& claim,
                                                 absl::Span<std::byte> buffer) {
  LookForTheDead(claim.position);
  Taken taken = {.self = self,
                 .has_slot = true,
                 .claim = claim,
                 .redelivered = claim.redelivered};
  if (absl::Status status = Resolve(&taken); !status.ok()) return status;
  return FinishInto(taken, buffer);
}

absl::StatusOr<size_t> QueueCore::FinishInto(const Taken& taken,
                                             absl::Span<std::byte> buffer) {
  const size_t size = taken.data.size();
  if (size > buffer.size()) {
    bool back;
    if (!taken.has_slot) {
      back = arena.GiveBack(taken.self, taken.block);
      AnnounceReturned();
    } else {
      // As the reaper would do it: the block first.
      if (taken.in_block) arena.Requeue(taken.self, taken.block);
      back = lanes[taken.lane].PutBack(taken.claim);
      RingReceivers();
    }
    if (!back) return Fenced(Side::kReceive);
    return absl::InvalidArgumentError(absl::StrCat(
        Name("Receive from"), ": message of ", size, " bytes, buffer of ",
        buffer.size(),
        ": pass one of max_message_bytes(); the message is still there"));
  }
  CopyBytes(buffer.data(), taken.data.data(), size);
  if (absl::Status status = FinishCopied(taken); !status.ok()) return status;
  return size;
}

absl::StatusOr<Message> QueueCore::FinishAsMessage(const Taken& taken) {
  Message message;
  MessageMemory& memory = message.memory_;
  memory.size = taken.data.size();
  if (taken.in_block) {
    memory.data = const_cast<std::byte*>(taken.data.data());
    Own(&memory, taken.block, taken.self);
  } else {
    memory.data = memory.small.data();
    CopyBytes(memory.data, taken.data.data(), memory.size);
  }
  message.type_ = taken.type;
  message.redelivered_ = taken.redelivered;
  // Without a core its destructor does nothing.
  if (absl::Status status = CommitSlot(taken); !status.ok()) return status;
  memory.core = this;
  return message;
}

absl::StatusOr<std::vector<Message>> QueueCore::ReceiveBatch(
    size_t max, absl::Duration timeout) {
  if (max == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name("ReceiveBatch from"), ": max is 0"));
  }
  std::vector<Message> batch;
  while (batch.size() < max) {
    Taken taken;
    absl::Status status = Take(timeout, /*may_wait=*/batch.empty(), &taken);
    absl::StatusOr<Message> message =
        status.ok() ? FinishAsMessage(taken) : absl::StatusOr<Message>(status);
    if (!message.ok()) {
      if (batch.empty()) return message.status();
      break;
    }
    batch.push_back(*std::move(message));
  }
  return batch;
}

absl::Status QueueCore::Ack(MessageMemory* memory) {
  const MessageMemory& m = *memory;
  absl::Status status;
  if (m.in_block) {
    if (!IsOwn(m)) return NotOwn("Ack to");
    if (arena.FreeHeld(OwnerOf(m), BlockOf(m))) {
      RingForRoom();
    } else {
      status = Fenced(Side::kReceive);
    }
  }
  Forget(memory);
  return status;
}

absl::Status QueueCore::GiveBack(MessageMemory* memory) {
  if (!is_explicit()) {
    return absl::FailedPreconditionError(
        absl::StrCat(Name("GiveBack to"),
                     ": it acknowledges automatically; create it with "
                     "Delivery::kExplicitAck"));
  }
  if (!IsOwn(*memory)) return NotOwn("GiveBack to");
  const bool back = arena.GiveBack(OwnerOf(*memory), BlockOf(*memory));
  Forget(memory);
  if (!back) return Fenced(Side::kReceive);
  AnnounceReturned();
  return absl::OkStatus();
}

void QueueCore::Drop(MessageMemory* memory) {
  const MessageMemory& m = *memory;
  if (m.in_block && IsOwn(m)) {
    if (is_explicit()) {
      if (arena.GiveBack(OwnerOf(m), BlockOf(m))) AnnounceReturned();
    } else if (arena.FreeHeld(OwnerOf(m), BlockOf(m))) {
      RingForRoom();
    }
  }
  Forget(memory);
}

absl::Status QueueCore::TaskDone() {
  Unacked oldest;
  {
    UnackedList& list = unacked();
    const std::lock_guard<std::mutex> guard(list.lock);
    if (list.messages.empty()) {
      return absl::FailedPreconditionError(absl::StrCat(
          Name("TaskDone of"),
          is_explicit() ? ": called more often than messages were received"
                        : ": it acknowledges automatically; create it with "
                          "Delivery::kExplicitAck"));
    }
    oldest = list.messages.front();
    list.messages.pop_front();
  }
  if (!arena.FreeHeld(oldest.self, oldest.block)) {
    return Fenced(Side::kReceive);
  }
  RingForRoom();
  return absl::OkStatus();
}

template <typename IsDone>
absl::Status QueueCore::AwaitDone(Deadline deadline, absl::Duration timeout,
                                  IsDone is_done) {
  Doorbell& bell = header().senders.joiners;
  bool is_tick = false;
  while (!is_done()) {
    const uint32_t ticket = bell.Announce();
    if (is_done()) break;
    // What it does rings us.
    if (is_tick || IsReapDue()) ReapAll(deadline);
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          Name("Join of"), ": messages are still to be done after ",
          absl::FormatDuration(timeout)));
    }
    const Deadline tick = Deadline::After(park_tick);
    is_tick = !bell.Sleep(ticket, Deadline::Earlier(tick, deadline));
  }
  return absl::OkStatus();
}

// One after the other: the message that slot i holds now, if any, is done with
// once the slot is free or in another lap. With explicit acknowledgement it may
// then be in a block, so these come after all slots; there it stays until it is
// acknowledged, however often it is delivered.
absl::Status QueueCore::Join(absl::Duration timeout) {
  // ReapAll needs an attachment of this process.
  if (auto self = attachment->Self(); !self.ok()) return self.status();
  const Deadline deadline = Deadline::After(timeout);
  for (const SlotRing& ring : lanes) {
    for (uint32_t i = 0; i < geometry.slot_count; ++i) {
      const uint32_t lap = ring.Load(i).lap();
      absl::Status status = AwaitDone(deadline, timeout, [&] {
        const SlotWord word = ring.Load(i);
        return word.lap() != lap || (word.state() != SlotState::kReady &&
                                     word.state() != SlotState::kReading &&
                                     word.state() != SlotState::kRequeued);
      });
      if (!status.ok()) return status;
    }
  }
  for (uint32_t i = 0; is_explicit() && i < geometry.block_count; ++i) {
    const uint32_t generation = arena.Load(i).generation();
    absl::Status status = AwaitDone(deadline, timeout, [&] {
      const BlockWord word = arena.Load(i);
      return word.generation() != generation ||
             (word.state() != BlockState::kQueued &&
              word.state() != BlockState::kHeld &&
              word.state() != BlockState::kRedeliver);
    });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace ipc::mqueue
