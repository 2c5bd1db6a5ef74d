// How many system calls a Connection makes, counted by ptrace(2).
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/pipe/connection.h"

namespace ipc::pipe {
namespace {

constexpr absl::Duration kNow = absl::ZeroDuration();
constexpr absl::Duration kLong = absl::Minutes(1);

struct Counts {
  int reads = 0;
  int writes = 0;
  int others = 0;
};

// What `body` does in a child, which has called `prepare` before.
void Count(const std::function<void()>& prepare,
           const std::function<void()>& body, Counts* counts) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    prepare();
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    syscall(SYS_getppid);  // from here
    body();
    syscall(SYS_getppid);  // to here
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  ASSERT_EQ(ptrace(PTRACE_SETOPTIONS, child, nullptr,
                   PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL),
            0);
  int marks = 0;
  while (true) {
    ASSERT_EQ(ptrace(PTRACE_SYSCALL, child, nullptr, nullptr), 0);
    ASSERT_EQ(waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status)) break;
    __ptrace_syscall_info info = {};
    ASSERT_GT(ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info), 0);
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) continue;
    if (info.entry.nr == SYS_getppid) {
      ++marks;
      continue;
    }
    if (marks != 1) continue;
    switch (info.entry.nr) {
      case SYS_preadv2:
      case SYS_read:
      case SYS_recvfrom:
      case SYS_recvmsg:
        ++counts->reads;
        break;
      case SYS_pwritev2:
      case SYS_writev:
      case SYS_write:
      case SYS_sendto:
      case SYS_sendmsg:
        ++counts->writes;
        break;
      case SYS_brk:  // malloc's
      case SYS_mmap:
      case SYS_munmap:
        break;
      default:
        ++counts->others;
    }
  }
  EXPECT_EQ(marks, 2);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

class ConnectionSyscallTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { Create({}); }
  void Create(const Connection::Options& options) {
    auto ends = Connection::CreatePair(GetParam(), options);
    ASSERT_TRUE(ends.ok()) << ends.status();
    ends_.emplace(*std::move(ends));
  }
  Connection& receiver() { return ends_->first; }
  Connection& sender() { return ends_->second; }

  // So that it is known what this kernel's pipes lack.
  void WarmUp() {
    ASSERT_TRUE(sender().Send("warm", kNow).ok());
    ASSERT_TRUE(receiver().Receive(kNow).ok());
  }
  Counts CountOf(const std::function<void()>& body) {
    Counts counts;
    Count([this] { WarmUp(); }, body, &counts);
    return counts;
  }

  std::optional<std::pair<Connection, Connection>> ends_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, ConnectionSyscallTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "Socketpair" : "Pipe";
                         });

TEST_P(ConnectionSyscallTest, AMessageIsOneWriteAndTwoReads) {
  const Counts counts = CountOf([&] {
    EXPECT_TRUE(sender().Send("message", kLong).ok());
    EXPECT_TRUE(receiver().Receive(kLong).ok());
  });
  EXPECT_EQ(counts.writes, 1);
  EXPECT_EQ(counts.reads, 2);
}

TEST_P(ConnectionSyscallTest, ACordOfManyChunksIsOneWrite) {
  std::deque<std::string> chunks;
  absl::Cord cord;
  for (int i = 0; i < 100; ++i) {
    chunks.emplace_back(300, static_cast<char>(i));
    cord.Append(
        absl::MakeCordFromExternal(absl::string_view(chunks.back()), [] {}));
  }
  const Counts counts =
      CountOf([&] { EXPECT_TRUE(sender().Send(cord, kLong).ok()); });
  EXPECT_EQ(counts.writes, 1);
}

TEST_P(ConnectionSyscallTest, ABatchIsOneWriteAndOneRead) {
  const std::vector<absl::string_view> batch(100, "message");
  const Counts counts = CountOf([&] {
    EXPECT_EQ(*sender().SendBatch(batch, kLong), 100u);
    EXPECT_EQ(receiver().ReceiveBatch(kLong)->size(), 100u);
  });
  EXPECT_EQ(counts.writes, 1);
  EXPECT_EQ(counts.reads, 1);
}

TEST_P(ConnectionSyscallTest, ReadingAheadManyMessagesAreOneRead) {
  Create({.read_ahead = true});
  const Counts counts = CountOf([&] {
    for (int i = 0; i < 100; ++i) {
      EXPECT_TRUE(sender().Send("message", kLong).ok());
    }
    for (int i = 0; i < 100; ++i) {
      EXPECT_TRUE(receiver().Receive(kLong).ok());
    }
  });
  EXPECT_EQ(counts.writes, 100);
  EXPECT_EQ(counts.reads, 1);
}

// The next writer of a FIFO would be waited for.
TEST_P(ConnectionSyscallTest, ReadingAheadTheEndIsReadOnce) {
  Create({.read_ahead = true});
  WarmUp();
  sender().Close();  // here, where it would stay open otherwise
  Counts counts;
  Count([] {},
        [&] { EXPECT_TRUE(absl::IsOutOfRange(receiver().Receive().status())); },
        &counts);
  EXPECT_EQ(counts.reads, 1);
}

// Where in its page a message lies that is sent, and one that is received,
// decides about the speed of its copies: see ipc/base/copy.h.
TEST_P(ConnectionSyscallTest, WhatWouldBeCopiedSlowlyGoesByTwoWrites) {
  const bool is_pipe = !GetParam();
  struct alignas(4096) Memory {
    char bytes[size_t{160} << 10];
  };
  const auto memory = std::make_unique<Memory>();
  const auto writes = [&](size_t place, size_t size) {
    return CountOf([&] {
             const absl::string_view message(memory->bytes + place, size);
             EXPECT_TRUE(sender().Send(message).ok());
             EXPECT_TRUE(receiver().Receive().ok());
           })
        .writes;
  };
  EXPECT_EQ(writes(0, 5000), is_pipe ? 2 : 1);
  EXPECT_EQ(writes(0, 4096), 1) << "it is copied anyway";
  EXPECT_EQ(writes(64, 5000), 1);
  EXPECT_EQ(writes(64, size_t{64} << 10), 1);
  EXPECT_EQ(writes(64, (size_t{64} << 10) + 1), is_pipe ? 2 : 1);
}

// To watch senders costs those of small messages nothing.
TEST_P(ConnectionSyscallTest, WatchedSendersOfSmallMessages) {
  Create({.watch_sender = true});
  const Counts counts = CountOf([&] {
    EXPECT_TRUE(sender().Send(std::string(4092, 'x')).ok());
    EXPECT_TRUE(receiver().Receive().ok());
  });
  EXPECT_EQ(counts.writes, 1);
  EXPECT_EQ(counts.reads, 2);
  EXPECT_LE(counts.others, 2) << "a signal's mask, on an older kernel";
}

}  // namespace
}  // namespace ipc::pipe
