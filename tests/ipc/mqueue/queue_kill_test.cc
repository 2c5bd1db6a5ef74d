// A process killed after every machine instruction of every operation of a
// queue. Afterwards the survivor can send and receive, within two park ticks;
// messages are whole, and each is delivered as queue.h says; no slot and no
// block is lost.
//
//   bazel test -c opt //tests/ipc/mqueue:queue_kill_test
//
// Without -c opt there are several times as many instructions, and only every
// eleventh is a point.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/block_word.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"
#include "tests/ipc/mqueue/numbered_message.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_points.h"

namespace ipc::mqueue {
namespace {

using testing::Child;
using testing::KillPoint;

#ifdef __OPTIMIZE__
constexpr int kStride = 1;
#else
constexpr int kStride = 11;
#endif

constexpr absl::Duration kTick = absl::Milliseconds(2);
// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr uint64_t kBefore = 1, kVictims = 2, kAfter = 3;

// How often the survivor may get the victim's message, by when it was killed.
enum class Effect {
  kNone,        // never: there is no message of the victim's
  kAppears,     // not before some point, and always from there on
  kDisappears,  // always before some point, and not from there on
  kStays,       // always, exactly once
};

struct Operation {
  const char* name;
  Options options;
  size_t message_bytes;  // what is sent, by anybody
  Effect effect;
  // In the parent, before the fork: what has to be there.
  std::function<void(Queue&)> arrange = [](Queue&) {};
  // In the victim: what it does before the first instruction that counts, and
  // what it is killed in.
  std::function<void(Queue&)> prepare = [](Queue&) {};
  std::function<void(Queue&)> operate;
  std::function<void(Queue&)> wake = nullptr;
};

std::string Text(uint64_t sender, size_t bytes) {
  // Of exactly so many bytes: padded by what the digest does not cover.
  std::string text = NumberedMessage{sender, bytes}.Encode(
      std::min<size_t>(bytes, NumberedMessage::kMaxBytes));
  const size_t digest = text.size();
  text.resize(bytes, 'p');
  return text.substr(0, std::max(digest, bytes));
}

class QueueCase : public testing::KillPointCase {
 public:
  struct Observed {
    bool had_effect = false;
    absl::Duration slowest;
    int slow = 0;
  };

  QueueCase(const Operation& operation, Observed* observed)
      : operation_(operation),
        observed_(observed),
        queue_(*Queue::CreateAnonymous(operation.options)) {
    QueueTestPeer::SetParkTick(queue_, kTick);
    operation_.arrange(queue_);
  }

  void Prepare() override {
    // A child attaches at its first call.
    (void)QueueTestPeer::attachment(queue_).Self();
    // So that it does the same each time, however long it takes.
    QueueTestPeer::SetParkTick(queue_, kPatience);
    operation_.prepare(queue_);
  }
  void Operate() override { operation_.operate(queue_); }
  bool Wake() override {
    if (operation_.wake == nullptr) return false;
    operation_.wake(queue_);
    return true;
  }

  void Check(const KillPoint& point) override {
    const absl::Time start = absl::Now();
    // Both directions: what was there comes out, and then what we put in.
    std::vector<int> received(4);
    ReceiveAll(&received);
    const std::string after = Text(kAfter, operation_.message_bytes);
    absl::Status sent;
    do {
      // What the dead one held may come back, and has to make room first.
      sent = queue_.Send(after, kTick);
      ReceiveAll(&received);
    } while (absl::IsDeadlineExceeded(sent) && absl::Now() - start < kPatience);
    if (absl::IsFailedPrecondition(sent)) {
      CheckClosed();
    } else {
      ASSERT_TRUE(sent.ok()) << sent;
      for (int i = 0; received[kAfter] == 0 && i < 16; ++i) {
        Receive(kPatience, &received);
      }
      ASSERT_EQ(received[kAfter], 1);
    }
    const absl::Duration took = absl::Now() - start;
    observed_->slowest = std::max(observed_->slowest, took);
    // Two ticks, and what a loaded machine takes besides.
    observed_->slow += took > 2 * kTick + absl::Milliseconds(10) ? 1 : 0;
    // What the dead one held may come back only now that it is reaped.
    QueueTestPeer::attachment(queue_).ReapAll();
    ReceiveAll(&received);
    CheckEffect(point, received[kVictims]);
    if (!absl::IsFailedPrecondition(sent)) CheckNothingIsLost();
  }

 private:
  void Receive(absl::Duration timeout, std::vector<int>* received) {
    absl::StatusOr<Message> message = queue_.ReceiveMessage(timeout);
    if (!message.ok()) return;
    Count(*message, received);
  }
  void ReceiveAll(std::vector<int>* received) {
    while (true) {
      absl::StatusOr<std::optional<Message>> message =
          queue_.TryReceiveMessage();
      if (absl::IsOutOfRange(message.status())) return;
      ASSERT_TRUE(message.ok()) << message.status();
      if (!message->has_value()) return;
      Count(**message, received);
    }
  }
  void Count(Message& message, std::vector<int>* received) const {
    ASSERT_GE(message.data().size(), sizeof(uint64_t));
    uint64_t sender;
    std::memcpy(&sender, message.data().data(), sizeof(sender));
    ASSERT_LT(sender, received->size());
    ASSERT_EQ(message.text(), Text(sender, operation_.message_bytes)) << "torn";
    ++(*received)[sender];
    ASSERT_TRUE(message.Ack().ok());
  }

  void CheckEffect(const KillPoint& point, int times) {
    switch (operation_.effect) {
      case Effect::kNone:
        EXPECT_EQ(times, 0);
        return;
      case Effect::kStays:
        EXPECT_EQ(times, 1);
        return;
      case Effect::kAppears:
      case Effect::kDisappears: {
        ASSERT_LE(times, 1) << "twice";
        const bool has_effect =
            (times == 1) == (operation_.effect == Effect::kAppears);
        // The commit is one instruction: what it has done stays done.
        if (!point.astray) {
          EXPECT_GE(has_effect, observed_->had_effect);
        }
        if (point.completed) {
          EXPECT_TRUE(has_effect);
        }
        if (point.instructions == 0 && !point.astray) {
          EXPECT_FALSE(has_effect);
        }
        observed_->had_effect |= has_effect && !point.astray;
        return;
      }
    }
  }

  void CheckClosed() {
    EXPECT_EQ(queue_.ReceiveMessage(kPatience).status().code(),
              absl::StatusCode::kOutOfRange);
  }

  // Every slot and every block can be used.
  void CheckNothingIsLost() {
    Arena& arena = QueueTestPeer::arena(queue_);
    for (uint32_t i = 0; i < arena.block_count(); ++i) {
      ASSERT_FALSE(arena.Load(i).IsInUse()) << "block " << i << " is lost";
    }
    EXPECT_EQ(queue_.stats().pending, 0u);
    const std::string text = Text(kAfter, operation_.message_bytes);
    for (size_t i = 0; i < queue_.capacity(); ++i) {
      ASSERT_TRUE(queue_.TrySend(text).ok()) << "slot " << i << " is lost";
    }
    std::vector<int> received(4);
    ReceiveAll(&received);
    EXPECT_EQ(received[kAfter], static_cast<int>(queue_.capacity()));
  }

  const Operation& operation_;
  Observed* const observed_;
  Queue queue_;
};

Options With(uint64_t slots, size_t bytes, Delivery delivery) {
  return {.slots = slots,
          .message_bytes = bytes,
          .delivery = delivery,
          .arena_bytes = bytes > 240 || delivery == Delivery::kExplicitAck
                             ? 1024 * (2 * slots + 2)
                             : 0,
          .block_bytes = 512,
          .participants = 8};
}

constexpr size_t kInline = 64, kLarge = 1000;

// A third process dies before the victim begins, in the middle of `work`.
void LeaveADead(Queue& queue, const std::function<void(Queue&)>& work) {
  Child dead = Child::Fork([&] {
    work(queue);
    Child::StopSelf();
    return 1;
  });
  dead.AwaitStop();
  dead.Kill();
}

std::vector<Operation> Operations() {
  std::vector<Operation> all;
  const auto send = [](size_t bytes) {
    return [text = Text(kVictims, bytes)](Queue& queue) {
      (void)queue.Send(text);
    };
  };
  const auto receive = [](Queue& queue) { (void)queue.Receive(); };
  for (const bool large : {false, true}) {
    const size_t bytes = large ? kLarge : kInline;
    const Options options = With(2, bytes, Delivery::kAutoAck);
    Options one_slot = options;
    one_slot.slots = 1;
    const auto name = [large](const char* inline_name, const char* arena_name) {
      return large ? arena_name : inline_name;
    };
    all.push_back({.name = name("SendInline", "SendInArena"),
                   .options = options,
                   .message_bytes = bytes,
                   .effect = Effect::kAppears,
                   .operate = send(bytes)});
    all.push_back(
        {.name = name("SendToFullOneInline", "SendToFullOneInArena"),
         .options = one_slot,
         .message_bytes = bytes,
         .effect = Effect::kNone,
         .arrange =
             [bytes](Queue& queue) { (void)queue.Send(Text(kBefore, bytes)); },
         .operate = [text = Text(kVictims, bytes)](
                        Queue& queue) { (void)queue.TrySend(text); }});
    all.push_back({.name = name("ReceiveInline", "ReceiveInArena"),
                   .options = options,
                   .message_bytes = bytes,
                   .effect = Effect::kDisappears,
                   .arrange = send(bytes),
                   .operate = receive});
    all.push_back({.name = name("ReceiveIntoInline", "ReceiveIntoInArena"),
                   .options = options,
                   .message_bytes = bytes,
                   .effect = Effect::kDisappears,
                   .arrange = send(bytes),
                   .operate = [](Queue& queue) {
                     std::byte buffer[kLarge];
                     (void)queue.ReceiveInto(absl::MakeSpan(buffer));
                   }});
    all.push_back(
        {.name = name("ReceiveMessageInline", "ReceiveMessageInArena"),
         .options = options,
         .message_bytes = bytes,
         .effect = Effect::kDisappears,
         .arrange = send(bytes),
         .operate = [](Queue& queue) {
           absl::StatusOr<Message> message = queue.ReceiveMessage();
         }});
    all.push_back({.name = name("PutBackInline", "PutBackInArena"),
                   .options = options,
                   .message_bytes = bytes,
                   .effect = Effect::kStays,
                   .arrange = send(bytes),
                   .operate = [](Queue& queue) {
                     std::byte byte;
                     (void)queue.ReceiveInto(absl::MakeSpan(&byte, 1));
                   }});
    all.push_back(
        {.name = name("ParkAndReceiveInline", "ParkAndReceiveInArena"),
         .options = options,
         .message_bytes = bytes,
         .effect = Effect::kNone,
         .operate = receive,
         .wake = [bytes](Queue& queue) {
           (void)queue.Send(Text(kBefore, bytes));
         }});
    all.push_back(
        {.name = name("ParkAndSendInline", "ParkAndSendInArena"),
         .options = one_slot,
         .message_bytes = bytes,
         .effect = Effect::kAppears,
         .arrange =
             [bytes](Queue& queue) { (void)queue.Send(Text(kBefore, bytes)); },
         .operate = send(bytes),
         .wake = [](Queue& queue) { (void)queue.TryReceive(); }});
    Options overwriting = one_slot;
    overwriting.full_policy = FullPolicy::kOverwriteOldest;
    all.push_back(
        {.name = name("OverwriteInline", "OverwriteInArena"),
         .options = overwriting,
         .message_bytes = bytes,
         .effect = Effect::kAppears,
         .arrange =
             [bytes](Queue& queue) { (void)queue.Send(Text(kBefore, bytes)); },
         .operate = send(bytes)});
    // A sender and a receiver died; the victim is killed while it cleans up.
    all.push_back(
        {.name = name("ReapInline", "ReapInArena"),
         .options = options,
         .message_bytes = bytes,
         .effect = Effect::kStays,
         .arrange =
             [send, bytes](Queue& queue) {
               send(bytes)(queue);
               LeaveADead(queue, [](Queue& q) {
                 SlotRing::Claim claim;
                 (void)QueueTestPeer::BeginReceive(q, &claim);
               });
               LeaveADead(queue, [](Queue& q) {
                 SlotRing::Claim claim;
                 (void)QueueTestPeer::BeginSend(q, &claim);
               });
             },
         .operate =
             [](Queue& queue) { QueueTestPeer::attachment(queue).ReapAll(); }});
  }
  const Options arena = With(2, kLarge, Delivery::kAutoAck);
  all.push_back({.name = "LendAndSendLoan",
                 .options = arena,
                 .message_bytes = kLarge,
                 .effect = Effect::kAppears,
                 .operate = [text = Text(kVictims, kLarge)](Queue& queue) {
                   absl::StatusOr<Loan> loan = queue.TryLoan(kLarge);
                   std::memcpy(loan->data().data(), text.data(), text.size());
                   (void)queue.Send(*std::move(loan));
                 }});
  all.push_back({.name = "LendAndDrop",
                 .options = arena,
                 .message_bytes = kLarge,
                 .effect = Effect::kNone,
                 .operate = [](Queue& queue) {
                   absl::StatusOr<Loan> loan = queue.TryLoan(kLarge);
                 }});
  all.push_back({.name = "Attach",
                 .options = With(2, kInline, Delivery::kAutoAck),
                 .message_bytes = kInline,
                 .effect = Effect::kNone,
                 .operate = [](Queue& queue) {
                   // Not destroyed within the operation: that is Detach.
                   new absl::StatusOr<Queue>(Queue::FromFd(
                       UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0))));
                 }});
  all.push_back({.name = "AttachAndDetach",
                 .options = With(2, kInline, Delivery::kAutoAck),
                 .message_bytes = kInline,
                 .effect = Effect::kNone,
                 .operate = [](Queue& queue) {
                   absl::StatusOr<Queue> same = Queue::FromFd(
                       UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0)));
                 }});
  all.push_back({.name = "CloseForSend",
                 .options = With(2, kInline, Delivery::kAutoAck),
                 .message_bytes = kInline,
                 .effect = Effect::kNone,
                 .operate = [](Queue& queue) { (void)queue.CloseForSend(); }});

  const Options explicit_ack = With(2, kInline, Delivery::kExplicitAck);
  // The victim receives before it is killed in what it does with the message.
  const auto with_message = [](void (*use)(Message)) {
    auto message = std::make_shared<std::optional<Message>>();
    return std::pair<std::function<void(Queue&)>, std::function<void(Queue&)>>(
        [message](Queue& queue) { message->emplace(*queue.ReceiveMessage()); },
        [message, use](Queue&) { use(*std::move(*message)); });
  };
  all.push_back({.name = "SendExplicit",
                 .options = explicit_ack,
                 .message_bytes = kInline,
                 .effect = Effect::kAppears,
                 .operate = send(kInline)});
  all.push_back({.name = "ReceiveExplicit",
                 .options = explicit_ack,
                 .message_bytes = kInline,
                 .effect = Effect::kStays,
                 .arrange = send(kInline),
                 .operate = receive});
  all.push_back({.name = "ReceiveAndTaskDone",
                 .options = explicit_ack,
                 .message_bytes = kInline,
                 .effect = Effect::kDisappears,
                 .arrange = send(kInline),
                 .operate = [](Queue& queue) {
                   (void)queue.Receive();
                   (void)queue.TaskDone();
                 }});
  const auto ack = with_message([](Message message) { (void)message.Ack(); });
  all.push_back({.name = "Ack",
                 .options = explicit_ack,
                 .message_bytes = kInline,
                 .effect = Effect::kDisappears,
                 .arrange = send(kInline),
                 .prepare = ack.first,
                 .operate = ack.second});
  const auto give_back =
      with_message([](Message message) { (void)message.GiveBack(); });
  all.push_back({.name = "GiveBack",
                 .options = explicit_ack,
                 .message_bytes = kInline,
                 .effect = Effect::kStays,
                 .arrange = send(kInline),
                 .prepare = give_back.first,
                 .operate = give_back.second});
  all.push_back({.name = "ReceiveRedelivered",
                 .options = explicit_ack,
                 .message_bytes = kInline,
                 .effect = Effect::kStays,
                 .arrange =
                     [send](Queue& queue) {
                       send(kInline)(queue);
                       (void)queue.ReceiveMessage()->GiveBack();
                     },
                 .operate = receive});
  all.push_back(
      {.name = "ReapExplicit",
       .options = explicit_ack,
       .message_bytes = kInline,
       .effect = Effect::kStays,
       .arrange =
           [send](Queue& queue) {
             send(kInline)(queue);
             LeaveADead(queue, [](Queue& q) { (void)q.Receive(); });
           },
       .operate =
           [](Queue& queue) { QueueTestPeer::attachment(queue).ReapAll(); }});
  return all;
}

class QueueKillTest : public ::testing::TestWithParam<Operation> {};

INSTANTIATE_TEST_SUITE_P(Operations, QueueKillTest,
                         ::testing::ValuesIn(Operations()),
                         [](const auto& info) { return info.param.name; });

TEST_P(QueueKillTest, Survived) {
  const Operation& operation = GetParam();
  QueueCase::Observed observed;
  const testing::KillPointReport report = testing::KillAtEveryInstruction(
      [&] { return std::make_unique<QueueCase>(operation, &observed); },
      kStride);
  printf(
      "%s: %d kill points, every %d. instruction (%d asleep, %d missed), %d "
      "failures; the survivor went on within %s, over two ticks and 10 ms %d "
      "times\n",
      operation.name, report.points, kStride, report.asleep, report.astray,
      HasFailure() ? 1 : 0, absl::FormatDuration(observed.slowest).c_str(),
      observed.slow);
  EXPECT_GT(report.points, 20);
  EXPECT_EQ(report.completed, 1);
  // A machine that does something else for a while is no hang.
  EXPECT_LE(observed.slow, report.points / 20 + 2);
}

}  // namespace
}  // namespace ipc::mqueue
