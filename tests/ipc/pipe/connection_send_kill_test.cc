// A process is killed after each instruction of sending; the receiver finds
// out.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/status_matchers.h"

namespace ipc::pipe {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;

constexpr absl::Duration kNow = absl::ZeroDuration();
// A survivor that waits longer hangs.
constexpr absl::Duration kPatience = absl::Seconds(20);

// In a build that is not optimised there are too many points to try all.
#ifdef NDEBUG
constexpr int kStride = 1;
#else
constexpr int kStride = 23;
#endif

struct SendParameters {
  std::string name;
  bool duplex;
  bool watch_sender;
  size_t bytes;
  bool batch;
  // The kernel does not hold all of it, but more than half: the victim sleeps
  // inside a message, once.
  bool small_buffer;
  // It begins with a page, from which a pipe is sent it by two calls, however
  // much room there is.
  bool two_writes = false;

  // There are instructions between the system calls of a message.
  bool can_be_torn() const { return small_buffer || two_writes; }
};

// What was found out about an unfinished message.
struct Findings {
  int torn_early = 0;  // while others could send
  int torn_late = 0;   // at the end of the stream
};

constexpr size_t kPage = 4096;
// From where no message goes by two calls that need not.
constexpr size_t kPlace = 64;

struct Free {
  void operator()(char* memory) const { std::free(memory); }
};

// The receiver keeps a copy of the sending end open, so that the stream does
// not end; and closes it when nothing more is to be found out.
class SendCase : public testing::KillPointCase {
 public:
  SendCase(const SendParameters& parameters, Findings& findings)
      : parameters_(parameters),
        findings_(findings),
        memory_(static_cast<char*>(std::aligned_alloc(kPage, 2 * kPage))),
        message_(memory_.get() + (parameters.two_writes ? 0 : kPlace),
                 parameters.bytes),
        views_{message_, message_, message_} {
    std::memset(memory_.get(), 'm', 2 * kPage);
    auto ends = *Connection::CreatePair(
        parameters.duplex,
        {.buffer_bytes = parameters.small_buffer ? size_t{1} : 0,
         .watch_sender = parameters.watch_sender});
    receiver_.emplace(std::move(ends.first));
    sender_.emplace(std::move(ends.second));
    if (parameters.small_buffer) {
      const int least = 1;  // the kernel's minimum, then
      if (parameters.duplex) {
        setsockopt(sender_->fd(), SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
      } else {
        fcntl(sender_->fd(), F_SETPIPE_SZ, 4096);
      }
    }
    copy_.Reset(fcntl(sender_->fd(), F_DUPFD_CLOEXEC, 0));
  }
  void Operate() override {
    // With a time-out, it returns from each system call with a part written,
    // and sleeps in poll: so that there are instructions inside a message.
    // Asleep in the write itself it is killed in sender_death_test.
    const absl::Duration timeout =
        parameters_.small_buffer ? kPatience : absl::InfiniteDuration();
    if (parameters_.batch) {
      (void)sender_->SendBatch(views_, timeout);
    } else {
      (void)sender_->Send(message_, timeout);
    }
  }
  bool Wake() override {
    (void)ReceiveWhatIsThere();
    return true;
  }
  void Check(const testing::KillPoint& point) override {
    sender_->Close();
    const absl::Status last = ReceiveWhatIsThere();
    if (point.completed) {
      EXPECT_EQ(whole_, parameters_.batch ? views_.size() : 1);
    }
    if (absl::IsDataLoss(last)) {
      EXPECT_TRUE(parameters_.watch_sender);
      ++findings_.torn_early;
      return;
    }
    ASSERT_THAT(last, StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
    copy_.Reset();
    const absl::Status end = receiver_->Receive(kPatience).status();
    if (absl::IsDataLoss(end)) {
      // Who watches had known.
      EXPECT_FALSE(parameters_.watch_sender) << end;
      ++findings_.torn_late;
      return;
    }
    ASSERT_THAT(end, StatusIs(StatusCode::kOutOfRange, HasSubstr("")));
  }

 private:
  // Until there is no more.
  absl::Status ReceiveWhatIsThere() {
    while (true) {
      const auto message = receiver_->Receive(kNow);
      if (!message.ok()) return message.status();
      EXPECT_TRUE(message_ == *message);
      ++whole_;
    }
  }

  const SendParameters& parameters_;
  Findings& findings_;
  const std::unique_ptr<char, Free> memory_;
  const absl::string_view message_;
  const std::vector<absl::string_view> views_;
  std::optional<Connection> receiver_;
  std::optional<Connection> sender_;
  UniqueFd copy_;
  size_t whole_ = 0;
};

class SendKillTest : public ::testing::TestWithParam<SendParameters> {};

INSTANTIATE_TEST_SUITE_P(
    Sends, SendKillTest,
    ::testing::Values(
        SendParameters{"Pipe", false, false, 100, false, false},
        SendParameters{"Socket", true, false, 100, false, false},
        SendParameters{"BatchOverAPipe", false, false, 100, true, false},
        SendParameters{"BatchOverASocket", true, false, 100, true, false},
        SendParameters{"LargeOverAPipe", false, false, 6000, false, true},
        SendParameters{"LargeOverASocket", true, false, 6000, false, true},
        SendParameters{"TwoWritesToAPipe", false, false, 6000, false, false,
                       true},
        SendParameters{"TwoWritesToAWatchedPipe", false, true, 6000, false,
                       false, true},
        SendParameters{"WatchedPipe", false, true, 100, false, false},
        SendParameters{"WatchedSocket", true, true, 100, false, false},
        SendParameters{"LargeOverAWatchedPipe", false, true, 6000, false, true},
        SendParameters{"LargeOverAWatchedSocket", true, true, 6000, false,
                       true},
        SendParameters{"BatchOverAWatchedPipe", false, true, 2000, true, true},
        SendParameters{"BatchOverAWatchedSocket", true, true, 2000, true,
                       true}),
    [](const auto& info) { return info.param.name; });

TEST_P(SendKillTest, TheReceiverFindsOut) {
  const SendParameters& parameters = GetParam();
  Findings findings;
  const testing::KillPointReport report = testing::KillAtEveryInstruction(
      [&] { return std::make_unique<SendCase>(parameters, findings); },
      kStride);
  printf(
      "%s: %d kill points, every %d. instruction (%d asleep, %d missed), "
      "%d inside a message, of which %d were told at once\n",
      parameters.name.c_str(), report.points, kStride, report.asleep,
      report.astray, findings.torn_early + findings.torn_late,
      findings.torn_early);
  EXPECT_GT(report.points, 2);
  EXPECT_EQ(report.completed, 1);
  if (!parameters.can_be_torn()) {
    EXPECT_EQ(findings.torn_early + findings.torn_late, 0);
  } else if (parameters.watch_sender) {
    EXPECT_GT(findings.torn_early, 0);
  } else {
    EXPECT_GT(findings.torn_late, 0);
  }
}

}  // namespace
}  // namespace ipc::pipe
