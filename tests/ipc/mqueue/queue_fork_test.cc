// What a forked child may not do with what its parent has in hand.
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

constexpr absl::Duration kPatience = absl::Seconds(60);

TEST(QueueForkTest, MessageInTheArenaIsTheParents) {
  for (const Delivery delivery : {Delivery::kAutoAck, Delivery::kExplicitAck}) {
    Queue queue = *Queue::CreateAnonymous({.message_bytes = 4096,
                                           .delivery = delivery,
                                           .arena_bytes = 4096,
                                           .block_bytes = 4096});
    const std::string text(4096, 'a');
    ASSERT_TRUE(queue.Send(text).ok());
    Message message = *queue.ReceiveMessage();
    Child child = Child::Fork([&] {
      // Also once the child is a participant of its own.
      for (int i = 0; i < 2; ++i) {
        if (message.text() != text) return 1;
        if (!absl::IsFailedPrecondition(message.GiveBack())) return 2;
        if (!absl::IsFailedPrecondition(message.Ack())) return 3;
        if (!queue.TryReceive().ok()) return 4;
      }
      { Message dropped = std::move(message); }
      return 0;
    });
    EXPECT_EQ(child.Wait(), 0);
    EXPECT_FALSE(queue.TryLoan(1000).ok()) << "the memory is still in use";
    EXPECT_EQ(message.text(), text);
    EXPECT_TRUE(message.Ack().ok());
    EXPECT_TRUE(queue.TryLoan(1000).ok());
  }
}

TEST(QueueForkTest, LoanInTheArenaIsTheParents) {
  Queue queue = *Queue::CreateAnonymous(
      {.message_bytes = 4096, .arena_bytes = 4096, .block_bytes = 4096});
  Loan loan = *queue.TryLoan(4096);
  Child child = Child::Fork([&] {
    const absl::Status status = queue.Send(std::move(loan));
    return absl::IsFailedPrecondition(status) ? 0 : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_FALSE(queue.TryLoan(4096).ok());
  EXPECT_TRUE(queue.Send(std::move(loan)).ok());
  EXPECT_TRUE(queue.Receive().ok());
}

// What plain receives of the parent took.
TEST(QueueForkTest, TaskDoneIsNotOfTheParentsTasks) {
  Queue queue = *Queue::CreateAnonymous({.delivery = Delivery::kExplicitAck});
  for (const char* text : {"parent's", "child's"}) {
    ASSERT_TRUE(queue.Send(text).ok());
  }
  ASSERT_TRUE(queue.Receive().ok());
  Child child = Child::Fork([&] {
    if (!absl::IsFailedPrecondition(queue.TaskDone())) return 1;
    if (!queue.Receive().ok() || !queue.TaskDone().ok()) return 2;
    return absl::IsFailedPrecondition(queue.TaskDone()) ? 0 : 3;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(queue.stats().unacked, 1u);
  EXPECT_TRUE(queue.TaskDone().ok());
  EXPECT_EQ(queue.stats().unacked, 0u);
}

// Another thread of the parent is anywhere in a receive or an acknowledgement,
// and is not there in the child.
TEST(QueueForkTest, ChildOfABusyParentDoesNotHang) {
  Queue queue = *Queue::CreateAnonymous({.delivery = Delivery::kExplicitAck});
  std::atomic<bool> is_over{false};
  std::thread busy([&] {
    while (!is_over) {
      if (!queue.Send("task").ok() || !queue.Receive(kPatience).ok() ||
          !queue.TaskDone().ok()) {
        return;
      }
    }
  });
  for (int i = 0; i < 300; ++i) {
    Child child = Child::Fork([&] {
      alarm(60);
      if (!absl::IsFailedPrecondition(queue.TaskDone())) return 1;
      absl::StatusOr<std::string> task = queue.Receive(absl::ZeroDuration());
      return task.ok() && !queue.TaskDone().ok() ? 2 : 0;
    });
    ASSERT_EQ(child.Wait(), 0);
  }
  is_over = true;
  // Its last task may have gone to a child.
  ASSERT_TRUE(queue.Send("task").ok());
  busy.join();
}

}  // namespace
}  // namespace ipc::mqueue
