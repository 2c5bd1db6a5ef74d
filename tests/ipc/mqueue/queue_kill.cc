#include "tests/ipc/mqueue/queue_kill.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/block_word.h"
#include "ipc/mqueue/message.h"
#include "tests/ipc/mqueue/numbered_message.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_operations.h"
#include "tests/testing/kill_points.h"

namespace ipc::mqueue {
namespace {

using testing::Child;
using testing::KillPoint;

constexpr absl::Duration kTick = absl::Milliseconds(1);

// What has been seen of a message at the points so far.
struct Seen {
  bool effect = false;
  bool redelivered = false;
};

// By Sender.
struct Received {
  std::array<int, 4> times = {};
  std::array<bool, 4> redelivered = {};
};

class QueueKillCase : public testing::KillPointCase {
 public:
  struct Observed {
    std::array<Seen, 4> seen;
    testing::Promptness promptness;
  };

  QueueKillCase(const QueueKill& kill, Survivors survivors, Observed* observed)
      : kill_(kill),
        survivors_(survivors),
        observed_(observed),
        queue_(*Queue::CreateAnonymous(kill.options)),
        after_(KillText(kAfter, kill.message_bytes)) {
    QueueTestPeer::SetParkTick(queue_, kTick);
    kill_.arrange(queue_);
    if (kill_.sleeper == Sleeper::kNone) return;
    sleeper_.emplace(Child::Fork([this] { return kill_.sleep(queue_); }));
    sleeper_->AwaitSleep();
  }

  void Prepare() override {
    // A child attaches at its first call.
    (void)QueueTestPeer::attachment(queue_).Self();
    // So that it does the same each time, however long it takes.
    QueueTestPeer::SetParkTick(queue_, kKillPatience);
    kill_.prepare(queue_);
  }
  void Operate() override { kill_.operate(queue_); }
  bool Wake() override {
    if (kill_.wake == nullptr) return false;
    kill_.wake(queue_);
    woken_ = true;
    return true;
  }

  void Check(const KillPoint& point) override {
    const absl::Time start = absl::Now();
    QueueTestPeer::HaveJustReaped(queue_);
    if (sleeper_.has_value()) {
      AwaitSleeper();
    } else if (survivors_ == Survivors::kPoll) {
      GoOnByPolling(start);
    } else {
      GoOnByWaiting();
    }
    if (::testing::Test::HasFailure()) return;
    // Two ticks, and what a loaded machine takes besides.
    is_in_doubt_ = observed_->promptness.IsInDoubt(
        absl::Now() - start, 2 * kTick + absl::Milliseconds(10));
    if (closed_ || sleeper_.has_value() || survivors_ == Survivors::kPoll) {
      // What the dead one held may come back only now that it is reaped.
      QueueTestPeer::SetParkTick(queue_, kTick);
      QueueTestPeer::attachment(queue_).ReapAll();
      ReceiveAll();
    } else {
      // Or to who waits for it, after two ticks at the latest.
      while (Receive(2 * kTick).ok()) continue;
      // The clock by which ticks are counted goes on every four milliseconds
      // only. Who stands in nobody's way is found by the next look.
      QueueTestPeer::attachment(queue_).ReapAll();
      while (Receive(kTick).ok()) continue;
    }
    if (!closed_) {
      EXPECT_EQ(received_.times[kAfter], 1);
    }
    CheckFate(point, kBefore, kill_.before);
    CheckFate(point, kVictims, kill_.victims);
    if (::testing::Test::HasFailure()) return;
    CheckNothingIsLost();
  }
  bool IsInDoubt() const override { return is_in_doubt_; }

 private:
  // Both directions: what was there comes out, and then what we put in.
  void GoOnByPolling(absl::Time start) {
    if (queue_.poll_fd() >= 0) {
      pollfd p = {queue_.poll_fd(), POLLIN, 0};
      ASSERT_EQ(
          poll(&p, 1,
               static_cast<int>(absl::ToInt64Milliseconds(kKillPatience))),
          1);
    }
    ReceiveAll();
    absl::Status sent;
    do {
      // What the dead one held may come back, and has to make room first.
      sent = queue_.Send(after_, kTick);
      ReceiveAll();
    } while (absl::IsDeadlineExceeded(sent) &&
             absl::Now() - start < kKillPatience);
    if (absl::IsFailedPrecondition(sent)) return ReceiveTheEnd();
    ASSERT_TRUE(sent.ok()) << sent;
    ReceiveUntilAfter();
  }

  void GoOnByWaiting() {
    if (kill_.options.full_policy != FullPolicy::kBlock) {
      // Who does not wait for room might drop what a receiver is to get.
      while (Receive(2 * kTick).ok()) continue;
    }
    Child sender = Child::Fork([&] {
      const absl::Status sent = queue_.Send(after_, kKillPatience);
      return sent.ok() || absl::IsFailedPrecondition(sent) ? 0 : 1;
    });
    ReceiveUntilAfter();
    EXPECT_EQ(sender.Wait(), 0);
  }

  // The sleeper goes on although nobody but itself looks for the dead.
  void AwaitSleeper() {
    QueueTestPeer::SetParkTick(queue_, 2 * kKillPatience);
    switch (kill_.sleeper) {
      case Sleeper::kNone:
        return;
      case Sleeper::kReceives: {
        // If the victim's message was sent, the sleeper takes it.
        ASSERT_TRUE(queue_.Join(kKillPatience).ok());
        ASSERT_TRUE(queue_.Send(after_, kKillPatience).ok());
        const int sender = sleeper_->Wait();
        ASSERT_GE(sender, static_cast<int>(kBefore));
        ASSERT_LE(sender, static_cast<int>(kAfter));
        ++received_.times[static_cast<size_t>(sender)];
        return ReceiveUntilAfter();
      }
      case Sleeper::kSends:
        ReceiveUntilAfter();
        break;
      case Sleeper::kEnds:
        if (!QueueTestPeer::ring(queue_).IsClosed()) {
          ASSERT_TRUE(queue_.CloseForSend().ok());
        }
        closed_ = true;
    }
    EXPECT_EQ(sleeper_->Wait(), 0);
  }

  void ReceiveUntilAfter() {
    while (received_.times[kAfter] == 0 && !closed_) {
      ASSERT_TRUE(Receive(kKillPatience).ok() || closed_);
    }
  }
  void ReceiveTheEnd() {
    while (!closed_) ASSERT_TRUE(Receive(kKillPatience).ok() || closed_);
  }
  absl::Status Receive(absl::Duration timeout) {
    absl::StatusOr<Message> message = queue_.ReceiveMessage(timeout);
    closed_ |= absl::IsOutOfRange(message.status());
    if (message.ok()) Count(*message);
    return message.status();
  }
  void ReceiveAll() {
    while (true) {
      absl::StatusOr<std::optional<Message>> message =
          queue_.TryReceiveMessage();
      if (absl::IsOutOfRange(message.status())) return;
      ASSERT_TRUE(message.ok()) << message.status();
      if (!message->has_value()) return;
      Count(**message);
    }
  }
  void Count(Message& message) {
    const uint64_t sender = KillSender(message.text());
    ASSERT_NE(sender, 0u) << "torn";
    ASSERT_EQ(message.data().size(), kill_.message_bytes);
    ++received_.times[sender];
    received_.redelivered[sender] |= message.redelivered();
    ASSERT_TRUE(message.Ack().ok());
  }

  void CheckFate(const KillPoint& point, Sender sender, const Fate& fate) {
    SCOPED_TRACE(sender == kBefore ? "the message from before"
                                   : "the message of the victim");
    const int times = received_.times[sender];
    Seen& seen = observed_->seen[sender];
    ASSERT_LE(times, 1) << "twice";
    switch (fate.effect) {
      case Effect::kNone:
        EXPECT_EQ(times, 0);
        return;
      case Effect::kStays:
        EXPECT_EQ(times, 1);
        break;
      case Effect::kTakenByWake:
        EXPECT_EQ(times, woken_ ? 0 : 1);
        return;
      case Effect::kAppears:
        CheckStep(point, times == 1, &seen.effect);
        break;
      case Effect::kDisappears:
        CheckStep(point, times == 0, &seen.effect);
        break;
      case Effect::kSentByWake:
        if (!woken_) {
          EXPECT_EQ(times, 0);
          return;
        }
        CheckStep(point, times == 0, &seen.effect);
    }
    if (times == 0 || sleeper_.has_value()) return;
    const bool redelivered = received_.redelivered[sender];
    switch (fate.redelivery) {
      case Redelivery::kNever:
        EXPECT_FALSE(redelivered);
        return;
      case Redelivery::kOnceTaken:
        CheckStep(point, redelivered, &seen.redelivered);
        return;
      case Redelivery::kAlways:
        EXPECT_TRUE(redelivered);
    }
  }
  // Each of these is done by one instruction, and what it has done stays done.
  static void CheckStep(const KillPoint& point, bool done, bool* was_done) {
    if (point.completed) {
      EXPECT_TRUE(done);
    }
    if (point.astray) return;
    if (point.instructions == 0) {
      EXPECT_FALSE(done);
    }
    EXPECT_GE(done, *was_done);
    *was_done |= done;
  }

  // Every block, every slot and every participant can be used.
  void CheckNothingIsLost() {
    Arena& arena = QueueTestPeer::arena(queue_);
    for (uint32_t i = 0; i < arena.block_count(); ++i) {
      ASSERT_FALSE(arena.Load(i).IsInUse()) << "block " << i << " is lost";
    }
    EXPECT_EQ(queue_.stats().pending, 0u);
    EXPECT_EQ(queue_.stats().unacked, 0u);
    std::vector<Queue> others;
    for (uint64_t i = 1; i < kill_.options.participants; ++i) {
      absl::StatusOr<Queue> other =
          Queue::FromFd(UniqueFd(fcntl(queue_.fd(), F_DUPFD_CLOEXEC, 0)));
      ASSERT_TRUE(other.ok()) << "a participant is lost: " << other.status();
      others.push_back(*std::move(other));
    }
    if (closed_) return;
    received_ = {};
    for (uint32_t lane = 0; lane < kill_.options.priorities; ++lane) {
      for (size_t i = 0; i < queue_.capacity(); ++i) {
        ASSERT_TRUE(queue_.TrySend(after_, {.priority = lane}).ok())
            << "slot " << i << " is lost";
      }
    }
    ReceiveAll();
    EXPECT_EQ(received_.times[kAfter],
              static_cast<int>(kill_.options.priorities * queue_.capacity()));
  }

  const QueueKill& kill_;
  const Survivors survivors_;
  Observed* const observed_;
  Queue queue_;
  const std::string after_;
  std::optional<Child> sleeper_;
  bool woken_ = false;
  bool closed_ = false;  // the end was told
  bool is_in_doubt_ = false;
  Received received_;
};

}  // namespace

std::string KillText(Sender sender, size_t bytes) {
  // Padded by what the digest does not cover.
  std::string text = NumberedMessage{sender, bytes}.Encode(
      std::min<size_t>(bytes, NumberedMessage::kMaxBytes));
  text.resize(bytes, 'p');
  return text;
}

uint64_t KillSender(absl::string_view text) {
  uint64_t sender;
  if (text.size() < sizeof(sender)) return 0;
  std::memcpy(&sender, text.data(), sizeof(sender));
  const bool is_known = sender >= kBefore && sender <= kAfter;
  return is_known && text == KillText(static_cast<Sender>(sender), text.size())
             ? sender
             : 0;
}

Options KillOptions(uint64_t slots, size_t bytes, Delivery delivery) {
  return {.slots = slots,
          .message_bytes = bytes,
          .delivery = delivery,
          .arena_bytes = bytes > 240 || delivery == Delivery::kExplicitAck
                             ? 1024 * (2 * slots + 2)
                             : 0,
          .block_bytes = 512,
          .participants = 8};
}

void CheckSurvival(const QueueKill& kill, Survivors survivors) {
  QueueKillCase::Observed observed;
  const testing::KillPointReport report = testing::KillAtEveryInstruction(
      [&] {
        return std::make_unique<QueueKillCase>(kill, survivors, &observed);
      },
      testing::kKillStride);
  printf(
      "%s: %d kill points, every %d. instruction (%d asleep, %d missed), %d "
      "failures; the survivor went on within %s, over two ticks and 10 ms %d "
      "times\n",
      kill.name, report.points, testing::kKillStride, report.asleep,
      report.astray, ::testing::Test::HasFailure() ? 1 : 0,
      absl::FormatDuration(observed.promptness.slowest).c_str(),
      observed.promptness.slow);
  EXPECT_GT(report.points, 20);
  EXPECT_EQ(report.completed, 1);
  EXPECT_LE(observed.promptness.slow, report.points / 20 + 2);
}

}  // namespace ipc::mqueue
