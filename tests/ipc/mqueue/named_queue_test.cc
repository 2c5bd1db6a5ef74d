// Queues by name, and of a type.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/typed_queue.h"
#include "ipc/shm/layout.h"
#include "tests/testing/child.h"
#include "tests/testing/unique_name.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

std::string UniqueName() {
  return testing::UniqueName("parley_named_queue_test");
}

TEST(NamedQueueTest, OpenedByName) {
  const std::string name = UniqueName();
  EXPECT_EQ(Queue::Open(name).status().code(), absl::StatusCode::kNotFound);
  Queue queue = *Queue::Create(name, {.slots = 8});
  EXPECT_EQ(Queue::Create(name).status().code(),
            absl::StatusCode::kAlreadyExists);
  struct stat stat;
  ASSERT_EQ(fstat(queue.fd(), &stat), 0);
  EXPECT_EQ(stat.st_mode & 0777, 0600u);
  Child child = Child::Fork([&] {
    absl::StatusOr<Queue> same = Queue::Open(name, Role::kSend);
    return same.ok() && same->capacity() == 8 && same->Send("hello").ok() ? 0
                                                                          : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(*queue.Receive(absl::Seconds(60)), "hello");
  EXPECT_TRUE(Queue::Unlink(name).ok());
  EXPECT_EQ(Queue::Unlink(name).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Queue::Open(name).status().code(), absl::StatusCode::kNotFound);
  // Who has it keeps it.
  EXPECT_TRUE(queue.Send("still").ok());
  EXPECT_EQ(*queue.Receive(), "still");
}

TEST(NamedQueueTest, DeathOfItsUserIsSeen) {
  const std::string name = UniqueName();
  Queue queue = *Queue::Create(name, {.delivery = Delivery::kExplicitAck});
  ASSERT_TRUE(queue.Send("message").ok());
  Child child = Child::Fork([&] {
    absl::StatusOr<Queue> same = Queue::Open(name);
    if (!same.ok() || !same->Receive().ok()) return 1;
    Child::StopSelf();
    return 2;
  });
  child.AwaitStop();
  child.Kill();
  EXPECT_EQ(*queue.Receive(absl::Seconds(60)), "message");
  EXPECT_TRUE(Queue::Unlink(name).ok());
}

TEST(NamedQueueTest, FileThatIsNone) {
  const std::string name = UniqueName();
  const std::string path = absl::StrCat("/dev/shm/", name);
  {
    UniqueFd fd(
        open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
    ASSERT_TRUE(fd.ok());
    ASSERT_EQ(ftruncate(fd.get(), 100'000), 0);
  }
  EXPECT_EQ(Queue::Open(name).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Queue::Unlink(name).ok());
}

// One that was truncated is refused when it is opened.
TEST(NamedQueueTest, TruncatedFile) {
  const std::string name = UniqueName();
  { Queue queue = *Queue::Create(name); }
  ASSERT_EQ(truncate(absl::StrCat("/dev/shm/", name).c_str(), 8192), 0);
  EXPECT_EQ(Queue::Open(name).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(Queue::Unlink(name).ok());
}

struct Order {
  static constexpr uint64_t kLayoutId = shm::LayoutId("parley.test.Order/1");
  int64_t id;
  double price;
};
struct Other {
  static constexpr uint64_t kLayoutId = shm::LayoutId("parley.test.Other/1");
  int64_t id;
  double price;
};
using Large = std::array<int32_t, 10'000>;

TEST(TypedQueueTest, CarriesValues) {
  TypedQueue<Order> orders = *TypedQueue<Order>::CreateAnonymous({.slots = 4});
  EXPECT_FALSE((*orders.TryReceive()).has_value());
  ASSERT_TRUE(orders.Send({.id = 7, .price = 1.5}).ok());
  ASSERT_TRUE(orders.TrySend({.id = 8, .price = 2.5}).ok());
  EXPECT_EQ(orders.Receive()->id, 7);
  std::optional<Order> order = *orders.TryReceive();
  ASSERT_TRUE(order.has_value());
  EXPECT_EQ(order->price, 2.5);
}

TEST(TypedQueueTest, LargeValues) {
  auto queue = *TypedQueue<Large>::CreateAnonymous({.slots = 2});
  Large value;
  for (int i = 0; i < 10'000; ++i) value[i] = i;
  ASSERT_TRUE(queue.Send(value).ok());
  EXPECT_EQ(*queue.Receive(), value);
}

// No name is not a way to ask for an anonymous one.
TEST(TypedQueueTest, EmptyNameIsRefused) {
  EXPECT_EQ(TypedQueue<Order>::Create("").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Queue::Create("").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(TypedQueueTest, AnotherTypeIsRefused) {
  const std::string name = UniqueName();
  TypedQueue<Order> orders = *TypedQueue<Order>::Create(name);
  EXPECT_TRUE(TypedQueue<Order>::Open(name).ok());
  EXPECT_EQ(TypedQueue<Other>::Open(name).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Queue::Unlink(name).ok());
  Queue bytes = *Queue::CreateAnonymous();
  EXPECT_EQ(
      TypedQueue<Order>::FromFd(UniqueFd(dup(bytes.fd()))).status().code(),
      absl::StatusCode::kFailedPrecondition);
  // Bytes of another size than T, sent past the type.
  ASSERT_TRUE(orders.queue().Send("x").ok());
  EXPECT_EQ(orders.Receive().status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace ipc::mqueue
