// The same driver, the same operations, another queue: what is left of
// Boost.Interprocess' message_queue when a process is killed within a send or a
// receive, beside what is left of ours.
//
//   bazel test -c opt //tests/ipc/mqueue:peer_kill_test --test_output=all
//
// A survivor is a new process, which has to get out what is there, and then to
// send and receive a message of its own.
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/date_time/posix_time/posix_time_types.hpp>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/queue.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/unique_name.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

#ifdef __OPTIMIZE__
constexpr int kStride = 1;
#else
constexpr int kStride = 11;
#endif

constexpr int kSlots = 8;
constexpr size_t kBytes = 64;
// A survivor may wait for two ticks of ours; Boost's has as long.
constexpr absl::Duration kTick = absl::Milliseconds(2);
constexpr int kPatienceMs = 60;

std::string Text(char c) { return std::string(kBytes, c); }

class OurQueue {
 public:
  static constexpr char kName[] = "Parley's Queue";

  OurQueue()
      : queue_(*Queue::CreateAnonymous(
            {.slots = kSlots, .message_bytes = kBytes})) {
    QueueTestPeer::SetParkTick(queue_, kTick);
  }
  // A child attaches at its first call; it is not this that is killed. Nor is
  // what it does for the dead at each tick, which comes by the time.
  void Prepare() {
    (void)QueueTestPeer::attachment(queue_).Self();
    QueueTestPeer::SetParkTick(queue_, absl::Seconds(20));
  }
  void Send(const std::string& text) { (void)queue_.Send(text); }
  void Receive() { (void)queue_.Receive(); }
  // False if it was full, or empty, for as long as a survivor waits.
  bool SendInTime(const std::string& text) {
    return queue_.Send(text, absl::Milliseconds(kPatienceMs)).ok();
  }
  std::optional<std::string> ReceiveInTime() {
    absl::StatusOr<std::string> text = queue_.Receive(2 * kTick);
    return text.ok() ? std::optional<std::string>(*text) : std::nullopt;
  }

 private:
  Queue queue_;
};

class BoostQueue {
 public:
  static constexpr char kName[] = "Boost message_queue";

  BoostQueue() {
    const std::string name = testing::UniqueName("parley-kill-test");
    boost::interprocess::message_queue::remove(name.c_str());
    queue_.emplace(boost::interprocess::create_only, name.c_str(), kSlots,
                   kBytes);
    // The mapping is all that children need.
    boost::interprocess::message_queue::remove(name.c_str());
  }
  void Prepare() {}
  void Send(const std::string& text) {
    queue_->send(text.data(), text.size(), 0);
  }
  void Receive() {
    std::string text(kBytes, '\0');
    size_t size;
    unsigned priority;
    queue_->receive(text.data(), text.size(), size, priority);
  }
  bool SendInTime(const std::string& text) {
    return queue_->timed_send(text.data(), text.size(), 0, In(kPatienceMs));
  }
  std::optional<std::string> ReceiveInTime() {
    std::string text(kBytes, '\0');
    size_t size;
    unsigned priority;
    if (!queue_->timed_receive(text.data(), text.size(), size, priority,
                               In(4))) {
      return std::nullopt;
    }
    text.resize(size);
    return text;
  }

 private:
  static boost::posix_time::ptime In(int milliseconds) {
    return boost::posix_time::microsec_clock::universal_time() +
           boost::posix_time::milliseconds(milliseconds);
  }

  std::optional<boost::interprocess::message_queue> queue_;
};

struct Outcomes {
  int usable = 0;
  int unusable = 0;  // it hangs, or fails
  int torn = 0;      // usable, but it gave out what nobody has sent
};

constexpr int kUsable = 0, kUnusable = 1, kTorn = 2;

// What a survivor finds, as an exit status. It is a process of its own, for it
// may hang where no time-out reaches.
template <typename Tested>
int Survive(Tested& queue) {
  bool torn = false;
  int received = 0;
  while (std::optional<std::string> text = queue.ReceiveInTime()) {
    torn |= *text != Text('b') && *text != Text('v');
    if (++received > kSlots) return kUnusable;
  }
  if (!queue.SendInTime(Text('a'))) return kUnusable;
  std::optional<std::string> text = queue.ReceiveInTime();
  if (!text.has_value()) return kUnusable;
  return torn || *text != Text('a') ? kTorn : kUsable;
}

template <typename Tested>
class PeerCase : public testing::KillPointCase {
 public:
  PeerCase(bool sends, Outcomes* outcomes)
      : sends_(sends), outcomes_(outcomes) {
    for (int i = 0; i < 2; ++i) queue_.Send(Text('b'));
  }
  void Prepare() override { queue_.Prepare(); }
  void Operate() override {
    if (sends_) {
      queue_.Send(Text('v'));
    } else {
      queue_.Receive();
    }
  }
  void Check(const testing::KillPoint&) override {
    Child survivor = Child::Fork([this] {
      // Boost's may say that its lock is lost for good.
      try {
        return Survive(queue_);
      } catch (const std::exception&) {
        return kUnusable;
      }
    });
    const UniqueFd ended(
        static_cast<int>(syscall(SYS_pidfd_open, survivor.pid(), 0)));
    pollfd p = {ended.get(), POLLIN, 0};
    const bool in_time = poll(&p, 1, 4 * kPatienceMs) == 1;
    switch (in_time ? survivor.Wait() : kUnusable) {
      case kUsable:
        ++outcomes_->usable;
        break;
      case kTorn:
        ++outcomes_->torn;
        break;
      default:
        ++outcomes_->unusable;
    }
  }

 private:
  const bool sends_;
  Outcomes* const outcomes_;
  Tested queue_;
};

template <typename Tested>
Outcomes KillWithin(bool sends, int stride) {
  Outcomes outcomes;
  const testing::KillPointReport report = testing::KillAtEveryInstruction(
      [&] { return std::make_unique<PeerCase<Tested>>(sends, &outcomes); },
      stride);
  printf("%-20s killed at %4d points of a %-7s: %d unusable, %d torn\n",
         Tested::kName, report.points, sends ? "send" : "receive",
         outcomes.unusable, outcomes.torn);
  EXPECT_GT(report.points, 5);
  return outcomes;
}

class PeerKillTest : public ::testing::TestWithParam<bool> {};

TEST_P(PeerKillTest, SideBySide) {
  const Outcomes ours = KillWithin<OurQueue>(GetParam(), kStride);
  EXPECT_EQ(ours.unusable, 0);
  EXPECT_EQ(ours.torn, 0);
  const Outcomes boost = KillWithin<BoostQueue>(GetParam(), kStride);
  // Else this test would not see what it is for.
  EXPECT_GT(boost.unusable, 0);
}

INSTANTIATE_TEST_SUITE_P(Operations, PeerKillTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "Send" : "Receive";
                         });

}  // namespace
}  // namespace ipc::mqueue
