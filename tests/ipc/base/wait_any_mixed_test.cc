// One WaitAny over all that can be waited for, of which each becomes ready in
// turn.
#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/wait_any.h"
#include "ipc/base/waitable.h"
#include "ipc/mqueue/queue.h"
#include "ipc/pipe/connection.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/process.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/connect.h"
#include "ipc/rendezvous/listener.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/unique_name.h"

namespace ipc {
namespace {

using mqueue::Queue;
using pipe::Connection;
using process::Process;
using rendezvous::Address;
using rendezvous::Listener;

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr absl::Duration kNow = absl::ZeroDuration();
constexpr absl::Duration kPatience = absl::Seconds(60);

enum Position : size_t {
  kQueue,
  kListener,
  kProcess,
  kConnection,
  kAhead,
  kFd
};

class WaitAnyMixedTest : public ::testing::Test {
 protected:
  WaitAnyMixedTest()
      : queue_(*Queue::CreateAnonymous({.slots = 4})),
        listener_(*Listener::Listen(
            Address::Abstract(testing::UniqueName("wait_any")))),
        process_(*Process::Start([this] {
          char byte;
          go_.second.Reset();  // or the end would never come
          return static_cast<int>(read(go_.first.get(), &byte, 1));
        })),
        connection_(*Connection::CreatePair()),
        ahead_(*Connection::CreatePair(true, {.read_ahead = true})),
        fd_(plain_.first.get()) {
    EXPECT_THAT(queue_.EnablePolling(), IsOk());
  }
  // Ends the process.
  ~WaitAnyMixedTest() override { go_.second.Reset(); }

  std::vector<const Waitable*> All() const {
    return {&queue_,       &listener_, &process_, &connection_.first,
            &ahead_.first, &fd_};
  }
  // Those that are ready; a Queue is at its ticks, too, and then has nothing.
  std::vector<size_t> Wait(absl::Duration timeout) {
    while (true) {
      absl::StatusOr<std::vector<size_t>> ready = WaitAny(All(), timeout);
      EXPECT_THAT(ready, IsOk());
      const bool is_tick =
          !ready->empty() && ready->front() == kQueue && !HasMessage();
      if (is_tick) ready->erase(ready->begin());
      if (!ready->empty() || !is_tick || timeout == kNow) return *ready;
    }
  }
  // Takes it; if there is none, that ends the tick.
  bool HasMessage() {
    const auto message = queue_.TryReceive();
    EXPECT_THAT(message, IsOk());
    if (message->has_value()) message_ = **message;
    return message->has_value();
  }

  static std::pair<UniqueFd, UniqueFd> MakePipe() {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
  }

  std::pair<UniqueFd, UniqueFd> go_ = MakePipe();
  std::pair<UniqueFd, UniqueFd> plain_ = MakePipe();
  std::string message_;
  Queue queue_;
  Listener listener_;
  Process process_;
  std::pair<Connection, Connection> connection_;
  std::pair<Connection, Connection> ahead_;
  WaitableFd fd_;
};

TEST_F(WaitAnyMixedTest, EachInTurn) {
  EXPECT_THAT(Wait(kNow), IsEmpty());

  testing::Child producer = testing::Child::Fork(
      [&] { return queue_.Send("task", kPatience).ok() ? 0 : 1; });
  EXPECT_THAT(Wait(kPatience), ElementsAre(kQueue));
  EXPECT_EQ(std::exchange(message_, ""), "task");
  EXPECT_EQ(producer.Wait(), 0);

  testing::Child client = testing::Child::Fork(
      [&] { return rendezvous::Connect(listener_.address()).ok() ? 0 : 1; });
  EXPECT_THAT(Wait(kPatience), ElementsAre(kListener));
  EXPECT_THAT(listener_.Accept(kPatience), IsOk());
  EXPECT_EQ(client.Wait(), 0);

  ASSERT_THAT(connection_.second.Send("message"), IsOk());
  EXPECT_THAT(Wait(kPatience), ElementsAre(kConnection));
  EXPECT_THAT(connection_.first.Receive(kNow), IsOkAndHolds("message"));

  // The second of these shows on no descriptor.
  ASSERT_THAT(ahead_.second.SendBatch({"first", "second"}), IsOk());
  for (const char* text : {"first", "second"}) {
    EXPECT_THAT(Wait(kPatience), ElementsAre(kAhead));
    EXPECT_THAT(ahead_.first.Receive(kNow), IsOkAndHolds(text));
  }

  char byte = 'x';
  ASSERT_EQ(write(plain_.second.get(), &byte, 1), 1);
  EXPECT_THAT(Wait(kPatience), ElementsAre(kFd));
  ASSERT_EQ(read(plain_.first.get(), &byte, 1), 1);

  EXPECT_THAT(Wait(kNow), IsEmpty());
  ASSERT_EQ(write(go_.second.get(), &byte, 1), 1);
  EXPECT_THAT(Wait(kPatience), ElementsAre(kProcess));
  EXPECT_EQ(process_.Join()->exitcode(), 1);

  // It stays so, as does the end of a stream.
  connection_.second.Close();
  plain_.second.Reset();
  EXPECT_THAT(Wait(kPatience), ElementsAre(kProcess, kConnection, kFd));
}

}  // namespace
}  // namespace ipc
