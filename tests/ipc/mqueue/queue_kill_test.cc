// A process killed after every machine instruction of every operation of a
// queue; queue_kill.h says what is expected of the survivors.
//
//   bazel test -c opt //tests/ipc/mqueue:queue_kill_test
//
// Without -c opt there are several times as many instructions, and only every
// eleventh is a point.
#include "tests/ipc/mqueue/queue_kill.h"

#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/policy.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

using Step = std::function<void(Queue&)>;

constexpr Fate kSent = {Effect::kAppears, Redelivery::kNever};
constexpr Fate kReceived = {Effect::kDisappears, Redelivery::kOnceTaken};
constexpr Fate kUntouched = {Effect::kStays, Redelivery::kNever};
constexpr Fate kKept = {Effect::kStays, Redelivery::kOnceTaken};
constexpr Fate kComesAgain = {Effect::kStays, Redelivery::kAlways};

Step Send(Sender sender, size_t bytes, uint32_t priority = 0) {
  return [text = KillText(sender, bytes), priority](Queue& queue) {
    (void)queue.Send(text, {.priority = priority});
  };
}
void Receive(Queue& queue) { (void)queue.Receive(); }
void TryReceive(Queue& queue) { (void)queue.TryReceive(); }
void Close(Queue& queue) { (void)queue.CloseForSend(); }
void ReapAll(Queue& queue) { QueueTestPeer::attachment(queue).ReapAll(); }

Step Both(Step first, Step second) {
  return [first = std::move(first), second = std::move(second)](Queue& queue) {
    first(queue);
    second(queue);
  };
}

// A third process dies before the victim begins, in the middle of `work`.
void LeaveADead(Queue& queue, const Step& work) {
  Child dead = Child::Fork([&] {
    work(queue);
    Child::StopSelf();
    return 1;
  });
  dead.AwaitStop();
  dead.Kill();
}

// How far the dead ones had come; with a message in the arena, when the block
// had changed hands already but not the slot.
void BeginReceive(Queue& queue) {
  SlotRing::Claim claim;
  (void)QueueTestPeer::BeginReceive(queue, &claim);
}
void BeginSend(Queue& queue) {
  SlotRing::Claim claim;
  (void)QueueTestPeer::BeginSend(queue, &claim);
}
void ReceiveUpToTheSlot(Queue& queue) {
  SlotRing::Claim claim;
  (void)QueueTestPeer::BeginReceive(queue, &claim);
  (void)QueueTestPeer::arena(queue).Hold(
      *QueueTestPeer::attachment(queue).Self(),
      QueueTestPeer::ring(queue).Contents(claim).block);
}
void SendUpToTheSlot(Queue& queue) {
  const Participant self = *QueueTestPeer::attachment(queue).Self();
  Arena& arena = QueueTestPeer::arena(queue);
  BlockName block;
  SlotRing::Claim claim;
  (void)arena.Allocate(self, kLarge, &block);
  (void)QueueTestPeer::BeginSend(queue, &claim);
  arena.Describe(block, kLarge, 0, 0);
  QueueTestPeer::ring(queue).FillName(claim, block);
  (void)arena.Enqueue(self, block);
}
void KeepALoan(Queue& queue) {
  BlockName block;
  (void)QueueTestPeer::arena(queue).Allocate(
      *QueueTestPeer::attachment(queue).Self(), kLarge, &block);
}

// Messages in slots, and in the arena.
void AddOfEachSize(std::vector<QueueKill>* all) {
  for (const bool large : {false, true}) {
    const size_t bytes = large ? kLarge : kInline;
    const Options options = KillOptions(2, bytes, Delivery::kAutoAck);
    Options one_slot = options;
    one_slot.slots = 1;
    const auto add = [&](const char* inline_name, const char* arena_name,
                         QueueKill kill) {
      kill.name = large ? arena_name : inline_name;
      kill.message_bytes = bytes;
      all->push_back(std::move(kill));
    };
    add("SendInline", "SendInArena",
        {.options = options,
         .victims = kSent,
         .operate = Send(kVictims, bytes)});
    add("SendToFullOneInline", "SendToFullOneInArena",
        {.options = one_slot,
         .before = kUntouched,
         .arrange = Send(kBefore, bytes),
         .operate = [text = KillText(kVictims, bytes)](Queue& queue) {
           (void)queue.TrySend(text);
         }});
    add("ReceiveInline", "ReceiveInArena",
        {.options = options,
         .victims = kReceived,
         .arrange = Send(kVictims, bytes),
         .operate = Receive});
    // Whoever sends then comes round to what the dead one was receiving.
    add("ReceiveFromFullOneInline", "ReceiveFromFullOneInArena",
        {.options = one_slot,
         .victims = kReceived,
         .arrange = Send(kVictims, bytes),
         .operate = Receive});
    add("ReceiveIntoInline", "ReceiveIntoInArena",
        {.options = options,
         .victims = kReceived,
         .arrange = Send(kVictims, bytes),
         .operate = [](Queue& queue) {
           std::byte buffer[kLarge];
           (void)queue.ReceiveInto(absl::MakeSpan(buffer));
         }});
    add("ReceiveMessageInline", "ReceiveMessageInArena",
        {.options = options,
         .victims = kReceived,
         .arrange = Send(kVictims, bytes),
         .operate = [](Queue& queue) {
           absl::StatusOr<Message> message = queue.ReceiveMessage();
         }});
    add("ReceiveBatchInline", "ReceiveBatchInArena",
        {.options = options,
         .before = kReceived,
         .victims = kReceived,
         .arrange = Both(Send(kBefore, bytes), Send(kVictims, bytes)),
         .operate = [](Queue& queue) {
           absl::StatusOr<std::vector<Message>> batch = queue.ReceiveBatch(2);
         }});
    add("PutBackInline", "PutBackInArena",
        {.options = options,
         .victims = kKept,
         .arrange = Send(kVictims, bytes),
         .operate = [](Queue& queue) {
           std::byte byte;
           (void)queue.ReceiveInto(absl::MakeSpan(&byte, 1));
         }});
    add("ParkAndReceiveInline", "ParkAndReceiveInArena",
        {.options = options,
         .before = {Effect::kSentByWake, Redelivery::kOnceTaken},
         .operate = Receive,
         .wake = Send(kBefore, bytes)});
    add("ParkAndSendInline", "ParkAndSendInArena",
        {.options = one_slot,
         .before = {Effect::kTakenByWake, Redelivery::kNever},
         .victims = kSent,
         .arrange = Send(kBefore, bytes),
         .operate = Send(kVictims, bytes),
         .wake = TryReceive});
    Options overwriting = one_slot;
    overwriting.full_policy = FullPolicy::kOverwriteOldest;
    add("OverwriteInline", "OverwriteInArena",
        {.options = overwriting,
         .before = kReceived,
         .victims = kSent,
         .arrange = Send(kBefore, bytes),
         .operate = Send(kVictims, bytes)});
    Options dropping = one_slot;
    dropping.full_policy = FullPolicy::kDropNewest;
    add("DropNewestInline", "DropNewestInArena",
        {.options = dropping,
         .before = kUntouched,
         .arrange = Send(kBefore, bytes),
         .operate = Send(kVictims, bytes)});
    // A sender and a receiver died; the victim is killed while it cleans up.
    add("ReapInline", "ReapInArena",
        {.options = options,
         .victims = kComesAgain,
         .arrange =
             [bytes](Queue& queue) {
               Send(kVictims, bytes)(queue);
               LeaveADead(queue, BeginReceive);
               LeaveADead(queue, BeginSend);
             },
         .operate = ReapAll});
    Options lanes = options;
    lanes.priorities = 3;
    add("SendOfAPriorityInline", "SendOfAPriorityInArena",
        {.options = lanes,
         .before = kUntouched,
         .victims = kSent,
         .arrange = Send(kBefore, bytes),
         .operate = Send(kVictims, bytes, 1)});
    add("ReceiveOfAPriorityInline", "ReceiveOfAPriorityInArena",
        {.options = lanes,
         .before = kUntouched,
         .victims = kReceived,
         .arrange = Both(Send(kBefore, bytes), Send(kVictims, bytes, 2)),
         .operate = Receive});
    add("ReceiveFromClosedInline", "ReceiveFromClosedInArena",
        {.options = options,
         .victims = kReceived,
         .arrange = Both(Send(kVictims, bytes), Close),
         .operate = Receive});
    add("ReceiveTheEndInline", "ReceiveTheEndInArena",
        {.options = options, .arrange = Close, .operate = TryReceive});
    add("SendToClosedInline", "SendToClosedInArena",
        {.options = options,
         .before = kUntouched,
         .arrange = Both(Send(kBefore, bytes), Close),
         .operate = Send(kVictims, bytes)});
    add("ParkAndJoinInline", "ParkAndJoinInArena",
        {.options = options,
         .before = {Effect::kTakenByWake, Redelivery::kNever},
         .arrange = Send(kBefore, bytes),
         .operate = [](Queue& queue) { (void)queue.Join(); },
         .wake = TryReceive});
    // The descriptor of the survivor is made readable, or its tick does that.
    add("SendToAPollerInline", "SendToAPollerInArena",
        {.options = options,
         .victims = kSent,
         .arrange =
             [](Queue& queue) {
               (void)queue.EnablePolling();
               (void)queue.TryReceive();
             },
         .operate = Send(kVictims, bytes)});
  }
}

void AddOthers(std::vector<QueueKill>* all) {
  const Options in_slots = KillOptions(2, kInline, Delivery::kAutoAck);
  const Options in_arena = KillOptions(2, kLarge, Delivery::kAutoAck);
  all->push_back({.name = "LendAndSendLoan",
                  .options = in_arena,
                  .message_bytes = kLarge,
                  .victims = kSent,
                  .operate = [text = KillText(kVictims, kLarge)](Queue& queue) {
                    absl::StatusOr<Loan> loan = queue.TryLoan(kLarge);
                    std::memcpy(loan->data().data(), text.data(), text.size());
                    (void)queue.Send(*std::move(loan));
                  }});
  all->push_back({.name = "LendAndDrop",
                  .options = in_arena,
                  .message_bytes = kLarge,
                  .operate = [](Queue& queue) {
                    absl::StatusOr<Loan> loan = queue.TryLoan(kLarge);
                  }});
  // As ReapInArena, of those who had come further.
  all->push_back({.name = "ReapUpToTheSlots",
                  .options = in_arena,
                  .message_bytes = kLarge,
                  .victims = kComesAgain,
                  .arrange =
                      [](Queue& queue) {
                        Send(kVictims, kLarge)(queue);
                        LeaveADead(queue, ReceiveUpToTheSlot);
                        LeaveADead(queue, SendUpToTheSlot);
                        LeaveADead(queue, KeepALoan);
                      },
                  .operate = ReapAll});
  all->push_back({.name = "Attach",
                  .options = in_slots,
                  .message_bytes = kInline,
                  .operate = [](Queue& queue) {
                    // Not destroyed within the operation: that is Detach.
                    new absl::StatusOr<Queue>(Queue::FromFd(
                        UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0))));
                  }});
  all->push_back({.name = "AttachAndDetach",
                  .options = in_slots,
                  .message_bytes = kInline,
                  .operate = [](Queue& queue) {
                    absl::StatusOr<Queue> same = Queue::FromFd(
                        UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0)));
                  }});
  all->push_back({.name = "CloseForSend",
                  .options = in_slots,
                  .message_bytes = kInline,
                  .operate = Close});
  all->push_back(
      {.name = "EnablePolling",
       .options = in_slots,
       .message_bytes = kInline,
       .victims = kUntouched,
       .arrange = Send(kVictims, kInline),
       .operate = [](Queue& queue) { (void)queue.EnablePolling(); }});
}

// With explicit acknowledgement everything is in the arena: in one block, and
// in a run of two.
void AddExplicit(std::vector<QueueKill>* all) {
  for (const bool run : {false, true}) {
    const size_t bytes = run ? kLarge : kInline;
    const Options options = KillOptions(2, bytes, Delivery::kExplicitAck);
    const auto add = [&](const char* name, const char* run_name,
                         QueueKill kill) {
      kill.name = run ? run_name : name;
      kill.options = options;
      kill.message_bytes = bytes;
      all->push_back(std::move(kill));
    };
    // The victim receives before it is killed in what it does with the message.
    const auto with_message = [](void (*use)(Message)) {
      auto message = std::make_shared<std::optional<Message>>();
      return std::pair<Step, Step>(
          [message](Queue& queue) {
            message->emplace(*queue.ReceiveMessage());
          },
          [message, use](Queue&) { use(*std::move(*message)); });
    };
    add("SendExplicit", "SendExplicitRun",
        {.victims = kSent, .operate = Send(kVictims, bytes)});
    add("ReceiveExplicit", "ReceiveExplicitRun",
        {.victims = kKept,
         .arrange = Send(kVictims, bytes),
         .operate = Receive});
    add("ReceiveExplicitFromClosed", "ReceiveExplicitRunFromClosed",
        {.victims = kKept,
         .arrange = Both(Send(kVictims, bytes), Close),
         .operate = Receive});
    add("ReceiveExplicitBatch", "ReceiveExplicitBatchOfRuns",
        {.before = kKept,
         .victims = kKept,
         .arrange = Both(Send(kBefore, bytes), Send(kVictims, bytes)),
         .operate = [](Queue& queue) {
           absl::StatusOr<std::vector<Message>> batch = queue.ReceiveBatch(2);
         }});
    add("ReceiveAndTaskDone", "ReceiveRunAndTaskDone",
        {.victims = kReceived,
         .arrange = Send(kVictims, bytes),
         .operate = [](Queue& queue) {
           (void)queue.Receive();
           (void)queue.TaskDone();
         }});
    const auto ack = with_message([](Message message) { (void)message.Ack(); });
    constexpr Fate kAcked = {Effect::kDisappears, Redelivery::kAlways};
    add("Ack", "AckRun",
        {.victims = kAcked,
         .arrange = Send(kVictims, bytes),
         .prepare = ack.first,
         .operate = ack.second});
    const auto give_back =
        with_message([](Message message) { (void)message.GiveBack(); });
    add("GiveBack", "GiveBackRun",
        {.victims = kComesAgain,
         .arrange = Send(kVictims, bytes),
         .prepare = give_back.first,
         .operate = give_back.second});
    const auto ack_last =
        with_message([](Message message) { (void)message.Ack(); });
    add("AckOfClosed", "AckRunOfClosed",
        {.victims = kAcked,
         .arrange = Both(Send(kVictims, bytes), Close),
         .prepare = ack_last.first,
         .operate = ack_last.second});
    add("ReceiveRedelivered", "ReceiveRedeliveredRun",
        {.victims = kComesAgain,
         .arrange = Both(
             Send(kVictims, bytes),
             [](Queue& queue) { (void)queue.ReceiveMessage()->GiveBack(); }),
         .operate = Receive});
    add("ReapExplicit", "ReapExplicitRun",
        {.victims = kComesAgain,
         .arrange =
             [bytes](Queue& queue) {
               Send(kVictims, bytes)(queue);
               LeaveADead(queue, Receive);
             },
         .operate = ReapAll});
    // One has not come as far as the commit of its slot, another one has.
    add("ReapExplicitBoth", "ReapExplicitRunsBoth",
        {.before = kComesAgain,
         .victims = kComesAgain,
         .arrange =
             [bytes](Queue& queue) {
               Send(kBefore, bytes)(queue);
               Send(kVictims, bytes)(queue);
               LeaveADead(queue, Receive);
               LeaveADead(queue, ReceiveUpToTheSlot);
             },
         .operate = ReapAll});
    add("ParkAndJoinExplicit", "ParkAndJoinExplicitRun",
        {.before = {Effect::kTakenByWake, Redelivery::kNever},
         .arrange = Send(kBefore, bytes),
         .operate = [](Queue& queue) { (void)queue.Join(); },
         .wake = [](Queue& queue) { (void)queue.ReceiveMessage()->Ack(); }});
  }
}

std::vector<QueueKill> All() {
  std::vector<QueueKill> all;
  AddOfEachSize(&all);
  AddOthers(&all);
  AddExplicit(&all);
  return all;
}

class QueueKillTest
    : public ::testing::TestWithParam<std::tuple<QueueKill, Survivors>> {};

INSTANTIATE_TEST_SUITE_P(
    Operations, QueueKillTest,
    ::testing::Combine(::testing::ValuesIn(All()),
                       ::testing::Values(Survivors::kPoll, Survivors::kWait)),
    [](const auto& info) {
      return absl::StrCat(
          std::get<0>(info.param).name,
          std::get<1>(info.param) == Survivors::kPoll ? "" : "AndWait");
    });

TEST_P(QueueKillTest, Survived) {
  CheckSurvival(std::get<0>(GetParam()), std::get<1>(GetParam()));
}

}  // namespace
}  // namespace ipc::mqueue
