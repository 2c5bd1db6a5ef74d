// A process killed while another one really sleeps in a call that the victim
// would have ended: at each instruction between its commit and the wake-up,
// too. The sleeper goes on by its own tick.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/policy.h"
#include "ipc/mqueue/queue.h"
#include "tests/ipc/mqueue/queue_kill.h"
#include "tests/testing/kill_operations.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/unique_name.h"

namespace ipc::mqueue {
namespace {

using Step = std::function<void(Queue&)>;

constexpr Fate kSent = {Effect::kAppears, Redelivery::kNever};
constexpr Fate kReceived = {Effect::kDisappears, Redelivery::kOnceTaken};

Step Send(Sender sender, size_t bytes) {
  return [text = KillText(sender, bytes)](Queue& queue) {
    (void)queue.Send(text);
  };
}

// In the sleeper.
int ReceiveOne(Queue& queue) {
  absl::StatusOr<Message> message = queue.ReceiveMessage(kKillPatience);
  if (!message.ok()) return 0;
  const uint64_t sender = KillSender(message->text());
  return message->Ack().ok() ? static_cast<int>(sender) : 0;
}
std::function<int(Queue&)> SendAfter(size_t bytes) {
  return [bytes](Queue& queue) {
    return queue.Send(KillText(kAfter, bytes), kKillPatience).ok() ? 0 : 1;
  };
}
std::function<int(Queue&)> JoinAndSendAfter(size_t bytes) {
  return [bytes](Queue& queue) {
    return queue.Join(kKillPatience).ok() ? SendAfter(bytes)(queue) : 2;
  };
}
int ReceiveTheEnd(Queue& queue) {
  return absl::IsOutOfRange(queue.Receive(kKillPatience).status()) ? 0 : 1;
}

std::vector<QueueKill> All() {
  std::vector<QueueKill> all;
  for (const bool large : {false, true}) {
    const size_t bytes = large ? kLarge : kInline;
    const Options options = KillOptions(2, bytes, Delivery::kAutoAck);
    const Options acked = KillOptions(2, bytes, Delivery::kExplicitAck);
    Options one_slot = options;
    one_slot.slots = 1;
    // Room for one message only, of whatever length.
    Options one_block = acked;
    one_block.slots = 1;
    one_block.arena_bytes = one_block.block_bytes = 1024;
    const auto add = [&](const char* inline_name, const char* arena_name,
                         QueueKill kill) {
      kill.name = large ? arena_name : inline_name;
      kill.message_bytes = bytes;
      all.push_back(std::move(kill));
    };
    // The victim receives before it is killed in what it does with the message.
    auto message = std::make_shared<std::optional<Message>>();
    const Step take = [message](Queue& queue) {
      message->emplace(*queue.ReceiveMessage());
    };
    const Step ack = [message](Queue&) { (void)(*message)->Ack(); };
    add("SendToAReceiver", "SendRunToAReceiver",
        {.options = options,
         .victims = kSent,
         .sleeper = Sleeper::kReceives,
         .sleep = ReceiveOne,
         .operate = Send(kVictims, bytes)});
    add("SendExplicitToAReceiver", "SendExplicitRunToAReceiver",
        {.options = acked,
         .victims = kSent,
         .sleeper = Sleeper::kReceives,
         .sleep = ReceiveOne,
         .operate = Send(kVictims, bytes)});
    add("ReceiveBeforeASender", "ReceiveRunBeforeASender",
        {.options = one_slot,
         .victims = kReceived,
         .arrange = Send(kVictims, bytes),
         .sleeper = Sleeper::kSends,
         .sleep = SendAfter(bytes),
         .operate = [](Queue& queue) { (void)queue.Receive(); }});
    add("AckBeforeASender", "AckRunBeforeASender",
        {.options = one_block,
         .victims = kReceived,
         .arrange = Send(kVictims, bytes),
         .sleeper = Sleeper::kSends,
         .sleep = SendAfter(bytes),
         .prepare = take,
         .operate = ack});
    add("ReceiveBeforeAJoiner", "ReceiveRunBeforeAJoiner",
        {.options = options,
         .victims = kReceived,
         .arrange = Send(kVictims, bytes),
         .sleeper = Sleeper::kSends,
         .sleep = JoinAndSendAfter(bytes),
         .operate = [](Queue& queue) { (void)queue.Receive(); }});
    add("AckBeforeAJoiner", "AckRunBeforeAJoiner",
        {.options = acked,
         .victims = kReceived,
         .arrange = Send(kVictims, bytes),
         .sleeper = Sleeper::kSends,
         .sleep = JoinAndSendAfter(bytes),
         .prepare = take,
         .operate = ack});
    add("CloseBeforeAReceiver", "CloseOfRunsBeforeAReceiver",
        {.options = options,
         .sleeper = Sleeper::kEnds,
         .sleep = ReceiveTheEnd,
         .operate = [](Queue& queue) { (void)queue.CloseForSend(); }});
  }
  return all;
}

class QueueWakeKillTest : public ::testing::TestWithParam<QueueKill> {};

INSTANTIATE_TEST_SUITE_P(Operations, QueueWakeKillTest,
                         ::testing::ValuesIn(All()),
                         [](const auto& info) { return info.param.name; });

TEST_P(QueueWakeKillTest, Survived) {
  CheckSurvival(GetParam(), Survivors::kWait);
}

// Whoever is killed while it creates a queue under a name leaves none, or one
// that is whole.
class CreateCase : public testing::KillPointCase {
 public:
  explicit CreateCase(bool* was_there) : was_there_(was_there) {}
  ~CreateCase() override { (void)Queue::Unlink(name_); }

  void Operate() override {
    // Not destroyed within the operation.
    new absl::StatusOr<Queue>(Queue::Create(name_, options_));
  }
  void Check(const testing::KillPoint& point) override {
    absl::StatusOr<Queue> queue = Queue::Open(name_);
    EXPECT_GE(queue.ok(), *was_there_ && !point.astray);
    EXPECT_TRUE(queue.ok() || !point.completed);
    *was_there_ |= queue.ok() && !point.astray;
    if (!queue.ok()) {
      ASSERT_TRUE(absl::IsNotFound(queue.status())) << queue.status();
      queue = Queue::Create(name_, options_);
      ASSERT_TRUE(queue.ok()) << queue.status();
    }
    ASSERT_EQ(queue->capacity(), options_.slots);
    const std::string text = KillText(kAfter, kLarge);
    for (uint64_t i = 0; i < options_.slots; ++i) {
      ASSERT_TRUE(queue->TrySend(text).ok());
    }
    for (uint64_t i = 0; i < options_.slots; ++i) {
      EXPECT_EQ(*queue->Receive(kKillPatience), text);
    }
    std::vector<Queue> others;
    for (uint64_t i = 1; i < options_.participants; ++i) {
      absl::StatusOr<Queue> other = Queue::Open(name_);
      ASSERT_TRUE(other.ok()) << other.status();
      others.push_back(*std::move(other));
    }
  }

 private:
  const Options options_ = KillOptions(2, kLarge, Delivery::kAutoAck);
  const std::string name_ = testing::UniqueName("parley_queue_kill_test");
  bool* const was_there_;
};

TEST(QueueCreateKillTest, WholeOrNotAtAll) {
  bool was_there = false;
  const testing::KillPointReport report = testing::KillAtEveryInstruction(
      [&] { return std::make_unique<CreateCase>(&was_there); },
      testing::kKillStride);
  printf("Create: %d kill points, every %d. instruction (%d missed)\n",
         report.points, testing::kKillStride, report.astray);
  EXPECT_GT(report.points, 100);
  EXPECT_EQ(report.completed, 1);
}

}  // namespace
}  // namespace ipc::mqueue
