#include "ipc/pipe/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/wait_any.h"
#include "ipc/pipe/frame.h"
#include "tests/ipc/pipe/signal_storm.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::pipe {
namespace {

using testing::Child;

using ::absl::StatusCode;
using ::testing::HasSubstr;

constexpr absl::Duration kShort = absl::Milliseconds(20);
constexpr size_t kMebibyte = 1 << 20;

// Where something must not hang but is allowed to take its time. Or for ever:
// who has no time limit goes other ways.
constexpr absl::Duration kLong = absl::Minutes(5);
absl::Duration patience = kLong;

std::string Pattern(size_t size, unsigned start = 0) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i * 31 + i / 251 + start) & 0xff);
  }
  return text;
}

absl::Span<std::byte> Writable(std::string& text) {
  return {reinterpret_cast<std::byte*>(text.data()), text.size()};
}

// Writes bytes that need not be a frame.
void WriteRaw(int fd, absl::string_view bytes) {
  ASSERT_EQ(write(fd, bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
}

std::string Frame(absl::string_view payload) {
  std::string frame;
  AppendFrame(payload, frame);
  return frame;
}

#define EXPECT_CODE(expression, expected)             \
  do {                                                \
    const absl::Status status_ = (expression);        \
    EXPECT_EQ(status_.code(), (expected)) << status_; \
  } while (false)

#define EXPECT_RECEIVES(connection, expected)              \
  do {                                                     \
    const absl::StatusOr<std::string> received_ =          \
        (connection).Receive(patience);                    \
    ASSERT_TRUE(received_.ok()) << received_.status();     \
    EXPECT_TRUE(absl::string_view(expected) == *received_) \
        << received_->size();                              \
  } while (false)

#define EXPECT_SENDS(connection, message)                              \
  do {                                                                 \
    const absl::Status status_ = (connection).Send(message, patience); \
    ASSERT_TRUE(status_.ok()) << status_;                              \
  } while (false)

struct Kind {
  bool duplex = false;  // a socketpair, not a pipe
  bool read_ahead = false;
  bool for_ever = false;  // waits without a time limit
};

constexpr Kind kKinds[] = {{.duplex = false},
                           {.duplex = true},
                           {.duplex = false, .for_ever = true},
                           {.duplex = true, .for_ever = true}};
constexpr Kind kKindsReadingAhead[] = {
    {.duplex = false, .read_ahead = true},
    {.duplex = true, .read_ahead = true},
    {.duplex = false, .read_ahead = true, .for_ever = true},
    {.duplex = true, .read_ahead = true, .for_ever = true}};

std::string NameOf(const ::testing::TestParamInfo<Kind>& info) {
  return absl::StrCat(info.param.duplex ? "Socketpair" : "Pipe",
                      info.param.read_ahead ? "ReadingAhead" : "",
                      info.param.for_ever ? "ForEver" : "");
}

// Two ends.
class ConnectionTest : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    patience = GetParam().for_ever ? absl::InfiniteDuration() : kLong;
    Create({});
  }
  void TearDown() override { patience = kLong; }

  void Create(Connection::Options options) {
    options.read_ahead = GetParam().read_ahead;
    auto ends = Connection::CreatePair(GetParam().duplex, options);
    ASSERT_TRUE(ends.ok()) << ends.status();
    receiver_.emplace(std::move(ends->first));
    sender_.emplace(std::move(ends->second));
  }
  bool duplex() const { return GetParam().duplex; }
  Connection& receiver() { return *receiver_; }
  Connection& sender() { return *sender_; }

 private:
  std::optional<Connection> receiver_;
  std::optional<Connection> sender_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, ConnectionTest, ::testing::ValuesIn(kKinds),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(KindsReadingAhead, ConnectionTest,
                         ::testing::ValuesIn(kKindsReadingAhead), NameOf);

// What holds as long as one's own message is all that is read.
using TakingTurnsTest = ConnectionTest;
INSTANTIATE_TEST_SUITE_P(Kinds, TakingTurnsTest, ::testing::ValuesIn(kKinds),
                         NameOf);

// What reading ahead changes.
using ReadAheadTest = ConnectionTest;
INSTANTIATE_TEST_SUITE_P(Kinds, ReadAheadTest,
                         ::testing::ValuesIn(kKindsReadingAhead), NameOf);

// ---- What CPython's own tests of Connection say, under their names.

TEST_P(ConnectionTest, Connection) {
  Child child = Child::Fork([&] {
    receiver().Close();
    for (const size_t size : {0, 1, 5, 100'000}) {
      if (!sender().Send(Pattern(size), patience).ok()) return 1;
    }
    return 0;
  });
  sender().Close();
  for (const size_t size : {0, 1, 5, 100'000}) {
    EXPECT_RECEIVES(receiver(), Pattern(size));
  }
  EXPECT_CODE(receiver().Receive(patience).status(), StatusCode::kOutOfRange);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(ConnectionPairTest, DuplexFalse) {
  auto ends = Connection::CreatePair(/*duplex=*/false);
  ASSERT_TRUE(ends.ok());
  auto& [reader, writer] = *ends;
  EXPECT_SENDS(writer, "1");
  EXPECT_RECEIVES(reader, "1");
  EXPECT_TRUE(reader.readable());
  EXPECT_FALSE(reader.writable());
  EXPECT_FALSE(writer.readable());
  EXPECT_TRUE(writer.writable());
  EXPECT_CODE(reader.Send("2"), StatusCode::kPermissionDenied);
  EXPECT_CODE(writer.Receive().status(), StatusCode::kPermissionDenied);
  EXPECT_CODE(writer.Poll().status(), StatusCode::kPermissionDenied);
}

TEST(ConnectionPairTest, DuplexTrue) {
  auto ends = Connection::CreatePair(/*duplex=*/true);
  ASSERT_TRUE(ends.ok());
  auto& [a, b] = *ends;
  EXPECT_SENDS(a, "to b");
  EXPECT_SENDS(b, "to a");
  EXPECT_RECEIVES(a, "to a");
  EXPECT_RECEIVES(b, "to b");
}

// A parent can close its copy at once: the child keeps its own.
TEST(ConnectionPairTest, SpawnClose) {
  auto ends = Connection::CreatePair(/*duplex=*/true);
  ASSERT_TRUE(ends.ok());
  Connection& conn = ends->first;
  Connection& child_conn = ends->second;
  Child child = Child::Fork([&] {
    conn.Close();
    absl::StatusOr<std::string> message = child_conn.Receive(patience);
    return message.ok() && child_conn.Send(*message, patience).ok() ? 0 : 1;
  });
  child_conn.Close();
  EXPECT_SENDS(conn, "hello");
  EXPECT_RECEIVES(conn, "hello");
  EXPECT_EQ(child.Wait(), 0);
}

// A Connection as a scope: it is closed at the end of it.
TEST_P(ConnectionTest, Context) {
  int fd = -1;
  {
    const Connection scoped = std::move(sender());
    fd = scoped.fd();
    EXPECT_NE(fcntl(fd, F_GETFD), -1);
  }
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
  EXPECT_CODE(receiver().Receive().status(), StatusCode::kOutOfRange);
}

// CPython: TestInvalidHandle.test_invalid_handles
TEST(FromFdTest, InvalidHandles) {
  const int not_open = 44'977;
  absl::StatusOr<Connection> connection =
      Connection::FromFd(UniqueFd(not_open));
  EXPECT_FALSE(connection.ok());
  EXPECT_THAT(std::string(connection.status().message()), HasSubstr("44977"));
  EXPECT_FALSE(Connection::FromFd(UniqueFd(-1)).ok());
}

// Nor does it hang or crash if somebody else has closed it meanwhile.
TEST_P(ConnectionTest, WhatSomebodyElseClosedIsAnError) {
  const UniqueFd kept(fcntl(sender().fd(), F_DUPFD_CLOEXEC, 0));
  close(sender().fd());
  EXPECT_FALSE(sender().Send("x").ok());
  EXPECT_FALSE(sender().Send(Pattern(kMebibyte), kShort).ok());
  close(receiver().fd());
  EXPECT_FALSE(receiver().Receive().ok());
  EXPECT_FALSE(receiver().Receive(kShort).ok());
}

// Parts of a buffer: what Python's offset and size are for.
TEST_P(ConnectionTest, Sendbytes) {
  const std::string message = "abcdefghijklmnopqrstuvwxyz";
  const absl::string_view all = message;
  for (const absl::string_view part : {all, all.substr(5), all.substr(7, 8),
                                       all.substr(26), all.substr(26, 0)}) {
    EXPECT_SENDS(sender(), part);
    EXPECT_RECEIVES(receiver(), part);
  }
}

TEST_P(ConnectionTest, Closing) {
  sender().Close();
  sender().Close();
  EXPECT_EQ(sender().fd(), -1);
  EXPECT_EQ(sender().poll_fd(), -1);
  EXPECT_CODE(sender().Send("x"), StatusCode::kFailedPrecondition);
  receiver().Close();
  EXPECT_CODE(receiver().Receive().status(), StatusCode::kFailedPrecondition);
  EXPECT_CODE(receiver().Poll().status(), StatusCode::kFailedPrecondition);
  EXPECT_CODE(receiver().Release().status(), StatusCode::kFailedPrecondition);
}

// Poll: an empty message is one.
TEST_P(ConnectionTest, EmptyString) {
  EXPECT_THAT(receiver().Poll(), ::testing::Truly([](const auto& ready) {
                return ready.ok() && !*ready;
              }));
  EXPECT_SENDS(sender(), "");
  EXPECT_TRUE(receiver().Poll(patience).value());
  EXPECT_TRUE(receiver().Poll().value());
  EXPECT_RECEIVES(receiver(), "");
  EXPECT_FALSE(receiver().Poll().value());
}

TEST_P(ConnectionTest, Strings) {
  const std::vector<std::string> strings = {"hello", "", "a", "b", "", "bye"};
  Child child = Child::Fork([&] {
    receiver().Close();
    for (const std::string& s : strings) {
      if (!sender().Send(s, patience).ok()) return 1;
    }
    return 0;
  });
  sender().Close();
  for (const std::string& s : strings) {
    EXPECT_TRUE(receiver().Poll(patience).value());
    EXPECT_RECEIVES(receiver(), s);
  }
  // The end of the stream is something to receive, too.
  EXPECT_TRUE(receiver().Poll(patience).value());
  EXPECT_CODE(receiver().Receive(patience).status(), StatusCode::kOutOfRange);
  EXPECT_EQ(child.Wait(), 0);
}

// Who only polls takes nothing, not even a part.
TEST_P(ConnectionTest, Boundaries) {
  Child child = Child::Fork([&] {
    sender().Close();
    const absl::StatusOr<bool> ready = receiver().Poll(patience);
    return ready.ok() && *ready ? 0 : 1;
  });
  EXPECT_SENDS(sender(), "first");
  EXPECT_SENDS(sender(), "second");
  sender().Close();
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_RECEIVES(receiver(), "first");
  EXPECT_RECEIVES(receiver(), "second");
}

// Receive takes one message, and not what is sent before or after.
TEST_P(ConnectionTest, DontMerge) {
  EXPECT_FALSE(receiver().Poll().value());
  EXPECT_SENDS(sender(), "a");
  EXPECT_SENDS(sender(), "b");
  EXPECT_TRUE(receiver().Poll().value());
  EXPECT_RECEIVES(receiver(), "a");
  EXPECT_TRUE(receiver().Poll().value());
  EXPECT_RECEIVES(receiver(), "b");
  EXPECT_FALSE(receiver().Poll().value());
}

TEST_P(ConnectionTest, Wait) {
  pollfd p = {.fd = receiver().poll_fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&p, 1, 0), 0);
  EXPECT_SENDS(sender(), "x");
  EXPECT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLIN);
}

// ---- Sizes.

TEST_P(ConnectionTest, CarriesMessagesOfAllSizes) {
  // Around what Python, a page and a pipe treat differently.
  const std::vector<size_t> sizes = {
      0,     1,     4091,  4092,  4093,  4096,      16384,
      16385, 65531, 65532, 65533, 65536, kMebibyte, 5 * kMebibyte + 3};
  std::thread thread([&] {
    for (const size_t size : sizes) EXPECT_SENDS(sender(), Pattern(size, size));
  });
  for (const size_t size : sizes) {
    EXPECT_RECEIVES(receiver(), Pattern(size, size));
  }
  thread.join();
}

TEST_P(ConnectionTest, ReceivesIntoABuffer) {
  std::thread thread([&] {
    for (const size_t size : {size_t{0}, size_t{100}, kMebibyte}) {
      EXPECT_SENDS(sender(), Pattern(size));
    }
  });
  std::string buffer(kMebibyte, '\0');
  for (const size_t size : {size_t{0}, size_t{100}, kMebibyte}) {
    absl::StatusOr<size_t> n =
        receiver().ReceiveInto(Writable(buffer), patience);
    ASSERT_TRUE(n.ok()) << n.status();
    EXPECT_EQ(*n, size);
    EXPECT_TRUE(buffer.substr(0, *n) == Pattern(size));
  }
  thread.join();
}

TEST_P(ConnectionTest, KeepsAMessageThatDoesNotFitTheBuffer) {
  EXPECT_SENDS(sender(), "0123456789");
  std::string buffer(9, '\0');
  for (int i = 0; i < 2; ++i) {
    const absl::Status status =
        receiver().ReceiveInto(Writable(buffer)).status();
    EXPECT_CODE(status, StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("10 bytes"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("9 bytes"));
  }
  EXPECT_RECEIVES(receiver(), "0123456789");
}

TEST_P(ConnectionTest, RefusesToSendMoreThanTheLimit) {
  Create({.max_message_bytes = 10});
  const absl::Status status = sender().Send("01234567890");
  EXPECT_CODE(status, StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("11 bytes"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("10 bytes"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_message_bytes"));
  // Nothing was written.
  EXPECT_SENDS(sender(), "0123456789");
  EXPECT_RECEIVES(receiver(), "0123456789");
}

TEST_P(ConnectionTest, RefusesAFrameAboveTheLimitAndSaysSoEverAfter) {
  Create({.max_message_bytes = 10});
  WriteRaw(sender().fd(), Frame("01234567890") + Frame("fits"));
  absl::Status status = receiver().Receive().status();
  EXPECT_CODE(status, StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_message_bytes"));
  for (int i = 0; i < 2; ++i) {
    status = receiver().Receive().status();
    EXPECT_CODE(status, StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("11 bytes"));
  }
  EXPECT_CODE(receiver().Poll().status(), StatusCode::kFailedPrecondition);
  std::string buffer(100, '\0');
  EXPECT_CODE(receiver().ReceiveInto(Writable(buffer)).status(),
              StatusCode::kFailedPrecondition);
  EXPECT_CODE(receiver().Release().status(), StatusCode::kFailedPrecondition);
}

// At its header: the rest may never come.
TEST_P(ConnectionTest, RefusesAFrameAboveTheLimitBeforeItsPayload) {
  Create({.max_message_bytes = 100});
  WriteRaw(sender().fd(), Frame(Pattern(200)).substr(0, 4));
  std::string buffer(1000, '\0');
  EXPECT_CODE(receiver().ReceiveInto(Writable(buffer), patience).status(),
              StatusCode::kResourceExhausted);
}

TEST_P(ConnectionTest, RefusesACorruptHeader) {
  WriteRaw(sender().fd(), "\xff\xff\xff\xfejunk");
  EXPECT_CODE(receiver().Receive().status(), StatusCode::kDataLoss);
  EXPECT_CODE(receiver().Receive().status(), StatusCode::kFailedPrecondition);
}

// Reserving what is claimed would throw, or abort under AddressSanitizer.
TEST_P(ConnectionTest, DoesNotReserveAClaimedLength) {
  Create({.max_message_bytes = SIZE_MAX});
  const FrameHeader header = EncodeFrameHeader(uint64_t{1} << 60);
  WriteRaw(
      sender().fd(),
      absl::string_view(reinterpret_cast<const char*>(header.bytes().data()),
                        header.bytes().size()));
  WriteRaw(sender().fd(), "0123456789");
  EXPECT_CODE(receiver().Receive(kShort).status(),
              StatusCode::kDeadlineExceeded);
  sender().Close();
  const absl::Status status = receiver().Receive().status();
  EXPECT_CODE(status, StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("10 of the 1152921504606846976 bytes"));
}

// A sanitizer keeps more memory than this for itself.
#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER)
TEST_P(ConnectionTest, WithoutMemoryAMessageIsResourceExhausted) {
  Create({.max_message_bytes = SIZE_MAX});
  Child child = Child::Fork([&] {
    sender().Close();
    // No more from the kernel, nor what was freed, but for small pieces.
    const rlimit none = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};
    std::vector<std::unique_ptr<char[]>> all;
    all.reserve(10'000);
    if (setrlimit(RLIMIT_AS, &none) != 0) return 1;
    while (char* const more = new (std::nothrow) char[kMebibyte]) {
      all.emplace_back(more);
    }
    if (!absl::IsResourceExhausted(receiver().Receive(patience).status())) {
      return 2;
    }
    if (!absl::IsResourceExhausted(receiver().Receive(patience).status())) {
      return 3;
    }
    return 0;
  });
  receiver().Close();
  // It closes before all is sent.
  EXPECT_CODE(sender().Send(Pattern(16 * kMebibyte), patience),
              StatusCode::kUnavailable);
  EXPECT_EQ(child.Wait(), 0);
}
#endif

// ---- The end of the stream and the death of a peer.

TEST_P(ConnectionTest, ACleanEndIsOutOfRange) {
  EXPECT_SENDS(sender(), "last");
  sender().Close();
  EXPECT_RECEIVES(receiver(), "last");
  EXPECT_CODE(receiver().Receive().status(), StatusCode::kOutOfRange);
  EXPECT_CODE(receiver().Receive(patience).status(), StatusCode::kOutOfRange);
  EXPECT_CODE(receiver().Receive(absl::ZeroDuration()).status(),
              StatusCode::kOutOfRange);
}

TEST_P(ConnectionTest, AnEndInsideAHeaderIsDataLoss) {
  WriteRaw(sender().fd(), Frame("x").substr(0, 3));
  sender().Close();
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = receiver().Receive().status();
    EXPECT_CODE(status, StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("3 of the 4 bytes"));
  }
}

TEST_P(ConnectionTest, AnEndInsideAPayloadIsDataLoss) {
  EXPECT_SENDS(sender(), "whole");
  WriteRaw(sender().fd(), Frame("0123456789").substr(0, 9));
  sender().Close();
  EXPECT_RECEIVES(receiver(), "whole");
  std::string buffer(100, '\0');
  absl::Status status = receiver().ReceiveInto(Writable(buffer)).status();
  EXPECT_CODE(status, StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("5 of the 10 bytes"));
  status = receiver().Receive().status();
  EXPECT_CODE(status, StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("5 of the 10 bytes"));
}

// Nobody reads, so the child cannot finish a message larger than the kernel's
// buffer; once the beginning of it is here, it is inside.
TEST_P(ConnectionTest, APeerKilledInsideAMessageIsDataLoss) {
  Child child = Child::Fork([&] {
    receiver().Close();
    return sender().Send(Pattern(5 * kMebibyte)).ok() ? 0 : 1;
  });
  sender().Close();
  ASSERT_TRUE(receiver().Poll(patience).value());
  ASSERT_EQ(kill(child.pid(), SIGKILL), 0);
  EXPECT_EQ(child.Wait(), -SIGKILL);
  const absl::Status status = receiver().Receive(patience).status();
  EXPECT_CODE(status, StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("of the 5242880 bytes"));
}

TEST_P(ConnectionTest, APeerKilledBetweenMessagesIsACleanEnd) {
  Child child = Child::Fork([&] {
    receiver().Close();
    if (!sender().Send("sent").ok()) return 1;
    return raise(SIGKILL);
  });
  sender().Close();
  EXPECT_EQ(child.Wait(), -SIGKILL);
  EXPECT_RECEIVES(receiver(), "sent");
  EXPECT_CODE(receiver().Receive(patience).status(), StatusCode::kOutOfRange);
}

TEST_P(ConnectionTest, SendToAClosedPeerIsUnavailable) {
  receiver().Close();
  for (const absl::Duration timeout :
       {absl::InfiniteDuration(), kShort, absl::ZeroDuration()}) {
    EXPECT_CODE(sender().Send("x", timeout), StatusCode::kUnavailable);
    EXPECT_CODE(sender().Send("", timeout), StatusCode::kUnavailable);
  }
}

// gtest leaves SIGPIPE at its default, so a stray one would end the test; this
// child makes sure of it.
TEST_P(ConnectionTest, SendToAClosedPeerRaisesNoSigpipe) {
  receiver().Close();
  Child child = Child::Fork([&] {
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 3; ++i) {
      if (!absl::IsUnavailable(sender().Send("x"))) return 1;
      if (!absl::IsUnavailable(sender().Send("x", kShort))) return 2;
    }
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    return sigismember(&mask, SIGPIPE) == 0 ? 0 : 3;
  });
  EXPECT_EQ(child.Wait(), 0);
}

class SigpipeBlocked {
 public:
  SigpipeBlocked() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~SigpipeBlocked() {
    TakePending();
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  bool TakePending() {
    const timespec now = {};
    return sigtimedwait(&set_, nullptr, &now) == SIGPIPE;
  }

 private:
  sigset_t set_;
  sigset_t before_;
};

TEST_P(ConnectionTest, SendLeavesNoSigpipePending) {
  SigpipeBlocked blocked;
  receiver().Close();
  EXPECT_CODE(sender().Send("x"), StatusCode::kUnavailable);
  EXPECT_CODE(sender().Send("x", kShort), StatusCode::kUnavailable);
  EXPECT_FALSE(blocked.TakePending());
}

TEST_P(ConnectionTest, SendLeavesSomebodyElsesSigpipePending) {
  SigpipeBlocked blocked;
  raise(SIGPIPE);
  receiver().Close();
  EXPECT_CODE(sender().Send("x"), StatusCode::kUnavailable);
  EXPECT_TRUE(blocked.TakePending());
}

TEST_P(ConnectionTest, APeerThatClosesDuringASendIsUnavailable) {
  std::thread thread([&] {
    // The sender is under way, and cannot finish.
    EXPECT_TRUE(receiver().Poll(patience).value());
    receiver().Close();
  });
  const absl::Status status = sender().Send(Pattern(5 * kMebibyte), patience);
  thread.join();
  EXPECT_CODE(status, StatusCode::kUnavailable);
  EXPECT_CODE(sender().Send("x"), StatusCode::kUnavailable);
}

// A socket, unlike a pipe, tells that what we sent was thrown away.
TEST(SocketpairTest, APeerThatClosedWithUnreadMessagesIsUnavailable) {
  auto ends = Connection::CreatePair(/*duplex=*/true);
  ASSERT_TRUE(ends.ok());
  auto& [a, b] = *ends;
  EXPECT_SENDS(a, "never read");
  EXPECT_SENDS(b, "last words");
  b.Close();
  EXPECT_RECEIVES(a, "last words");
  EXPECT_CODE(a.Receive().status(), StatusCode::kUnavailable);
  EXPECT_CODE(a.Receive().status(), StatusCode::kOutOfRange);
}

// The kernel tells it once.
TEST(SocketpairTest, WhoReadsAheadIsToldOfUnreadMessagesToo) {
  for (const bool batch : {false, true}) {
    SCOPED_TRACE(batch);
    auto ends = Connection::CreatePair(/*duplex=*/true, {.read_ahead = !batch});
    ASSERT_TRUE(ends.ok());
    auto& [a, b] = *ends;
    EXPECT_SENDS(a, "never read");
    EXPECT_SENDS(b, "last words");
    b.Close();
    const auto receive = [&a = a, batch]() -> absl::Status {
      return batch ? a.ReceiveBatch().status() : a.Receive().status();
    };
    EXPECT_CODE(receive(), StatusCode::kOk);
    EXPECT_CODE(receive(), StatusCode::kUnavailable);
    EXPECT_CODE(receive(), StatusCode::kOutOfRange);
  }
}

TEST(SocketpairTest, ATruncatedFrameIsDataLossEvenWithUnreadMessages) {
  auto ends = Connection::CreatePair(/*duplex=*/true);
  ASSERT_TRUE(ends.ok());
  auto& [a, b] = *ends;
  EXPECT_SENDS(a, "never read");
  WriteRaw(b.fd(), Frame("0123456789").substr(0, 9));
  b.Close();
  const absl::Status status = a.Receive().status();
  EXPECT_CODE(status, StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("5 of the 10 bytes"));
}

TEST(SocketpairTest, ShutdownSendEndsOneDirection) {
  auto ends = Connection::CreatePair(/*duplex=*/true);
  ASSERT_TRUE(ends.ok());
  auto& [a, b] = *ends;
  EXPECT_SENDS(a, "question");
  EXPECT_CODE(a.ShutdownSend(), StatusCode::kOk);
  EXPECT_CODE(a.Send("more"), StatusCode::kFailedPrecondition);
  EXPECT_RECEIVES(b, "question");
  EXPECT_CODE(b.Receive().status(), StatusCode::kOutOfRange);
  EXPECT_SENDS(b, "answer");
  EXPECT_RECEIVES(a, "answer");
  EXPECT_CODE(a.Release().status(), StatusCode::kOk);
}

TEST(PipeTest, ShutdownSendIsFailedPrecondition) {
  auto ends = Connection::CreatePair(/*duplex=*/false);
  ASSERT_TRUE(ends.ok());
  auto& [reader, writer] = *ends;
  EXPECT_CODE(writer.ShutdownSend(), StatusCode::kFailedPrecondition);
  EXPECT_CODE(reader.ShutdownSend(), StatusCode::kPermissionDenied);
  EXPECT_SENDS(writer, "still there");
}

// ---- Time-outs.

TEST_P(ConnectionTest, ReceiveTimesOut) {
  const absl::Time start = absl::Now();
  EXPECT_CODE(receiver().Receive(kShort).status(),
              StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - start, kShort);
  EXPECT_FALSE(receiver().Poll(kShort).value());
  EXPECT_GE(absl::Now() - start, 2 * kShort);
  EXPECT_CODE(receiver().Receive(absl::ZeroDuration()).status(),
              StatusCode::kDeadlineExceeded);
  EXPECT_CODE(receiver().Receive(-kShort).status(),
              StatusCode::kDeadlineExceeded);
  EXPECT_SENDS(sender(), "x");
  EXPECT_RECEIVES(receiver(), "x");
}

TEST_P(ConnectionTest, ATimeoutOfZeroTakesWhatIsThere) {
  EXPECT_CODE(sender().Send("x", absl::ZeroDuration()), StatusCode::kOk);
  EXPECT_EQ(receiver().Receive(absl::ZeroDuration()).value(), "x");
}

TEST_P(ConnectionTest, ReceiveGoesOnAfterATimeout) {
  const std::string stream = Frame("") + Frame("a") + Frame("bcdef");
  std::vector<std::string> received;
  std::string buffer(100, '\0');
  for (size_t i = 0; i < stream.size(); ++i) {
    WriteRaw(sender().fd(), stream.substr(i, 1));
    // Both kinds must go on where the other one stopped.
    if (i % 2 == 0) {
      absl::StatusOr<std::string> message =
          receiver().Receive(absl::ZeroDuration());
      if (message.ok()) {
        received.push_back(*message);
      } else {
        EXPECT_CODE(message.status(), StatusCode::kDeadlineExceeded);
      }
    } else {
      absl::StatusOr<size_t> n =
          receiver().ReceiveInto(Writable(buffer), absl::ZeroDuration());
      if (n.ok()) {
        received.push_back(buffer.substr(0, *n));
      } else {
        EXPECT_CODE(n.status(), StatusCode::kDeadlineExceeded);
      }
    }
  }
  EXPECT_THAT(received, ::testing::ElementsAre("", "a", "bcdef"));
}

TEST_P(ConnectionTest, ASendThatWroteNothingMayBeRepeated) {
  // Within PIPE_BUF, so all or nothing.
  const std::string message = Pattern(4000);
  size_t sent = 0;
  absl::Status status;
  while ((status = sender().Send(message, absl::ZeroDuration())).ok()) ++sent;
  EXPECT_CODE(status, StatusCode::kDeadlineExceeded);
  const absl::Time start = absl::Now();
  EXPECT_CODE(sender().Send(message, kShort), StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - start, kShort);
  ASSERT_GT(sent, 0);
  for (size_t i = 0; i < sent; ++i) EXPECT_RECEIVES(receiver(), message);
  EXPECT_CODE(receiver().Receive(absl::ZeroDuration()).status(),
              StatusCode::kDeadlineExceeded);
  EXPECT_SENDS(sender(), "again");
  EXPECT_RECEIVES(receiver(), "again");
}

TEST_P(ConnectionTest, ASendThatWroteAPartEndsTheConnection) {
  const absl::Time start = absl::Now();
  absl::Status status = sender().Send(Pattern(5 * kMebibyte), kShort);
  EXPECT_GE(absl::Now() - start, kShort);
  EXPECT_CODE(status, StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("of the 5242884 bytes"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("close"));
  for (int i = 0; i < 2; ++i) {
    status = sender().Send("x");
    EXPECT_CODE(status, StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("close"));
  }
  EXPECT_CODE(sender().Release().status(), StatusCode::kFailedPrecondition);
  sender().Close();
  EXPECT_CODE(receiver().Receive(patience).status(), StatusCode::kDataLoss);
}

TEST_P(ConnectionTest, TimeoutsLeaveTheFileStatusFlagsAlone) {
  const int receiver_flags = fcntl(receiver().fd(), F_GETFL);
  const int sender_flags = fcntl(sender().fd(), F_GETFL);
  EXPECT_EQ(receiver_flags & O_NONBLOCK, 0);
  EXPECT_SENDS(sender(), "x");
  EXPECT_RECEIVES(receiver(), "x");
  EXPECT_CODE(receiver().Receive(kShort).status(),
              StatusCode::kDeadlineExceeded);
  EXPECT_EQ(fcntl(receiver().fd(), F_GETFL), receiver_flags);
  EXPECT_EQ(fcntl(sender().fd(), F_GETFL), sender_flags);
}

TEST_P(ConnectionTest, WorksWhenSomebodySetONonblock) {
  for (const int fd : {receiver().fd(), sender().fd()}) {
    ASSERT_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
  }
  std::thread thread([&] {
    const absl::Status status = sender().Send(Pattern(kMebibyte));
    EXPECT_TRUE(status.ok()) << status;
  });
  absl::StatusOr<std::string> message = receiver().Receive();
  thread.join();
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_TRUE(*message == Pattern(kMebibyte));
}

// ---- Signals.

// CPython: test_ignore of TestIgnoreEINTR
TEST_P(ConnectionTest, Ignore) {
  constexpr int kHuge = 8 << 20;  // more than a buffer
  Child child = Child::Fork([&](Child::Side side) {
    struct sigaction action = {};
    action.sa_handler = [](int) {};  // without SA_RESTART
    sigaction(SIGUSR1, &action, nullptr);
    side.Tell();
    const absl::StatusOr<std::string> message = receiver().Receive();
    side.Tell();
    side.Hear();
    return message.ok() && message->size() == kHuge ? 0 : 1;
  });
  ASSERT_TRUE(child.Hear());
  child.AwaitSleep();
  ASSERT_EQ(kill(child.pid(), SIGUSR1), 0);
  EXPECT_SENDS(sender(), std::string(kHuge, 'x'));
  ASSERT_TRUE(child.Hear());
  ASSERT_TRUE(child.Tell());
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(ConnectionTest, MessagesSurviveAStormOfSignals) {
  constexpr int kMessages = 20;
  Child child = Child::Fork([&] {
    SignalStorm storm;
    receiver().Close();
    for (int i = 0; i < kMessages; ++i) {
      const absl::Duration timeout =
          i % 2 == 0 ? absl::InfiniteDuration() : patience;
      if (!sender().Send(Pattern(kMebibyte + i, i), timeout).ok()) return 1;
    }
    return 0;
  });
  sender().Close();
  SignalStorm storm;
  for (int i = 0; i < kMessages; ++i) {
    EXPECT_RECEIVES(receiver(), Pattern(kMebibyte + i, i));
  }
  EXPECT_CODE(receiver().Receive().status(), StatusCode::kOutOfRange);
  EXPECT_EQ(child.Wait(), 0);
}

// What is written by one call, unless a signal comes when half of it has found
// room: a pipe takes more than PIPE_BUF bytes page by page.
TEST_P(ConnectionTest, MessagesOfAPageSurviveAStormOfSignals) {
  constexpr int kMessages = 3000;
  constexpr int kBytes = 4096;
  Child child = Child::Fork([&] {
    SignalStorm storm;
    receiver().Close();
    for (int i = 0; i < kMessages; ++i) {
      if (!sender().Send(Pattern(kBytes - i % 4, i)).ok()) return 1;
    }
    return 0;
  });
  sender().Close();
  for (int i = 0; i < kMessages; ++i) {
    // Else there is always room; only at the end it does not sleep any more.
    if (i % 50 == 0 && i < kMessages - 500) child.AwaitSleep();
    EXPECT_RECEIVES(receiver(), Pattern(kBytes - i % 4, i));
  }
  EXPECT_CODE(receiver().Receive().status(), StatusCode::kOutOfRange);
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(ConnectionTest, TimeoutsSurviveAStormOfSignals) {
  SignalStorm storm;
  absl::Time start = absl::Now();
  EXPECT_CODE(receiver().Receive(kShort).status(),
              StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - start, kShort);
  start = absl::Now();
  EXPECT_CODE(sender().Send(Pattern(5 * kMebibyte), kShort),
              StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - start, kShort);
}

// ---- Several users of one end.

// What is read belongs to one message, so another reader finds the next one.
TEST_P(TakingTurnsTest, ReadersOfOneEndTakeTurns) {
  absl::StatusOr<Connection> other =
      Connection::FromFd(UniqueFd(fcntl(receiver().fd(), F_DUPFD, 0)));
  ASSERT_TRUE(other.ok()) << other.status();
  for (int i = 0; i < 10; ++i) EXPECT_SENDS(sender(), absl::StrCat(i));
  for (int i = 0; i < 10; ++i) {
    EXPECT_RECEIVES(i % 2 == 0 ? receiver() : *other, absl::StrCat(i));
  }
}

TEST_P(TakingTurnsTest, ReleaseHandsOnTheNextMessage) {
  EXPECT_SENDS(sender(), "first");
  EXPECT_SENDS(sender(), "second");
  EXPECT_RECEIVES(receiver(), "first");
  absl::StatusOr<UniqueFd> fd = receiver().Release();
  ASSERT_TRUE(fd.ok()) << fd.status();
  EXPECT_EQ(receiver().fd(), -1);
  absl::StatusOr<Connection> heir = Connection::FromFd(*std::move(fd));
  ASSERT_TRUE(heir.ok()) << heir.status();
  EXPECT_RECEIVES(*heir, "second");
}

TEST_P(ConnectionTest, ReleaseInsideAMessageIsRefused) {
  WriteRaw(sender().fd(), Frame("abc").substr(0, 5));
  EXPECT_CODE(receiver().Receive(absl::ZeroDuration()).status(),
              StatusCode::kDeadlineExceeded);
  EXPECT_CODE(receiver().Release().status(), StatusCode::kFailedPrecondition);
  WriteRaw(sender().fd(), "bc");
  EXPECT_RECEIVES(receiver(), "abc");
  EXPECT_CODE(receiver().Release().status(), StatusCode::kOk);
}

TEST_P(ReadAheadTest, WhatWasReadIsReadyWithoutTheDescriptor) {
  for (const char* message : {"first", "", "third"}) {
    EXPECT_SENDS(sender(), message);
  }
  EXPECT_FALSE(receiver().is_ready());
  EXPECT_RECEIVES(receiver(), "first");
  pollfd p = {.fd = receiver().poll_fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&p, 1, 0), 0) << "the kernel has nothing left";
  EXPECT_TRUE(receiver().is_ready());
  EXPECT_THAT(receiver().Poll(), IsOkAndHolds(true));
  EXPECT_THAT(WaitAny({&receiver()}, patience),
              IsOkAndHolds(std::vector<size_t>{0}));
  EXPECT_RECEIVES(receiver(), "");
  EXPECT_RECEIVES(receiver(), "third");
  EXPECT_FALSE(receiver().is_ready());
  EXPECT_THAT(receiver().Poll(), IsOkAndHolds(false));
}

TEST_P(ReadAheadTest, WhatWasReadGoesWithTheConnection) {
  for (const char* const message : {"first", "second", "third"}) {
    EXPECT_SENDS(sender(), message);
  }
  EXPECT_RECEIVES(receiver(), "first");
  Connection moved = std::move(receiver());
  EXPECT_CODE(receiver().Receive().status(), StatusCode::kFailedPrecondition);
  EXPECT_RECEIVES(moved, "second");
  moved.Close();
  EXPECT_CODE(moved.Receive().status(), StatusCode::kFailedPrecondition);
}

TEST_P(ReadAheadTest, ReleaseLosesNothing) {
  EXPECT_SENDS(sender(), "first");
  EXPECT_SENDS(sender(), "second");
  EXPECT_RECEIVES(receiver(), "first");
  EXPECT_CODE(receiver().Release().status(), StatusCode::kFailedPrecondition);
  EXPECT_RECEIVES(receiver(), "second");
  EXPECT_CODE(receiver().Release().status(), StatusCode::kOk);
}

// Small ones, such that fill the buffer, and such that do not go through it, by
// all ways to receive.
TEST_P(ReadAheadTest, WaysOfReceivingMayBeMixed) {
  std::vector<std::string> messages;
  for (const size_t size :
       {7, 0, 100, 20'000, 40'000, 1, 65'532, 65'536, 3, 200'000, 10, 30'000}) {
    for (int i = 0; i < 12; ++i) messages.push_back(Pattern(size));
  }
  Child child = Child::Fork([&] {
    receiver().Close();
    for (const std::string& message : messages) {
      if (!sender().Send(message, patience).ok()) return 1;
    }
    return 0;
  });
  sender().Close();
  std::vector<std::string> received;
  std::string buffer(200'000, '\0');
  for (int turn = 0; received.size() < messages.size(); ++turn) {
    if (turn % 3 == 0) {
      absl::StatusOr<std::string> message = receiver().Receive(patience);
      ASSERT_TRUE(message.ok()) << message.status();
      received.push_back(*std::move(message));
    } else if (turn % 3 == 1) {
      const absl::StatusOr<size_t> size = receiver().ReceiveInto(
          absl::MakeSpan(reinterpret_cast<std::byte*>(buffer.data()),
                         buffer.size()),
          patience);
      ASSERT_TRUE(size.ok()) << size.status();
      received.push_back(buffer.substr(0, *size));
    } else if (turn % 9 == 2) {
      absl::StatusOr<std::vector<std::string>> batch =
          receiver().ReceiveBatch(patience);
      ASSERT_TRUE(batch.ok()) << batch.status();
      for (std::string& message : *batch) received.push_back(message);
    }
  }
  EXPECT_TRUE(received == messages);
  EXPECT_CODE(receiver().Receive(patience).status(), StatusCode::kOutOfRange);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(SocketpairTest, ReadingAheadRefusesDescriptors) {
  auto ends = Connection::CreatePair(/*duplex=*/true, {.read_ahead = true});
  ASSERT_TRUE(ends.ok()) << ends.status();
  const absl::Status status =
      ends->first.ReceiveFds(1, absl::ZeroDuration()).status();
  EXPECT_CODE(status, StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("read_ahead"));
}

// The kernel keeps as much as it was asked to, or as it may.
TEST_P(ConnectionTest, BufferBytesAreWhatCanBeSentUnread) {
  const auto room = [&] {
    size_t sent = 0;
    while (sender().Send(Pattern(4000), absl::ZeroDuration()).ok()) ++sent;
    return sent;
  };
  const size_t before = room();
  Create({.buffer_bytes = size_t{1} << 19});
  EXPECT_GE(room(), before * 3 / 2);
  // More than any system allows is no error.
  Create({.buffer_bytes = SIZE_MAX});
  EXPECT_GE(room(), before * 3 / 2);
}

TEST_P(ConnectionTest, TheBufferGrowsWithTheMessages) {
  // More than the kernel holds by default.
  const std::string message = Pattern(duplex() ? 300'000 : 65'536);
  EXPECT_TRUE(sender().Send(message, absl::ZeroDuration()).ok());
  EXPECT_RECEIVES(receiver(), message);
  // Not if a size was asked for.
  Create({.buffer_bytes = 1});
  EXPECT_CODE(sender().Send(message, absl::ZeroDuration()),
              StatusCode::kDeadlineExceeded);
}

// The kernel does not mix writes to a pipe of up to PIPE_BUF bytes.
TEST(PipeTest, SendersOfSmallMessagesMayShareAnEnd) {
  constexpr int kSenders = 4;
  constexpr int kMessages = 500;
  auto ends = Connection::CreatePair(/*duplex=*/false);
  ASSERT_TRUE(ends.ok());
  auto& [reader, writer] = *ends;
  std::vector<std::thread> threads;
  for (int s = 0; s < kSenders; ++s) {
    absl::StatusOr<Connection> own =
        Connection::FromFd(UniqueFd(fcntl(writer.fd(), F_DUPFD, 0)));
    ASSERT_TRUE(own.ok()) << own.status();
    threads.emplace_back([s, own = *std::move(own)]() mutable {
      for (int i = 0; i < kMessages; ++i) {
        std::string message(1 + (i * 37 + s) % 4092, static_cast<char>(i));
        message[0] = static_cast<char>(s);
        EXPECT_SENDS(own, message);
      }
    });
  }
  writer.Close();
  int next[kSenders] = {};
  for (int n = 0; n < kSenders * kMessages; ++n) {
    absl::StatusOr<std::string> message = reader.Receive(patience);
    ASSERT_TRUE(message.ok()) << message.status();
    const int s = static_cast<unsigned char>((*message)[0]);
    ASSERT_LT(s, kSenders);
    const int i = next[s]++;
    std::string expected(1 + (i * 37 + s) % 4092, static_cast<char>(i));
    expected[0] = static_cast<char>(s);
    EXPECT_TRUE(*message == expected) << "message " << i << " of sender " << s;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_CODE(reader.Receive(patience).status(), StatusCode::kOutOfRange);
}

TEST(SocketpairTest, OneThreadSendsWhileAnotherReceives) {
  constexpr int kMessages = 2000;
  auto ends = Connection::CreatePair(/*duplex=*/true);
  ASSERT_TRUE(ends.ok());
  auto& [a, b] = *ends;
  std::thread echo([&b = b] {
    while (true) {
      absl::StatusOr<std::string> message = b.Receive(patience);
      if (absl::IsOutOfRange(message.status())) break;
      ASSERT_TRUE(message.ok()) << message.status();
      EXPECT_SENDS(b, *message);
    }
  });
  std::thread sending([&a = a] {
    for (int i = 0; i < kMessages; ++i) EXPECT_SENDS(a, Pattern(i * 3, i));
    EXPECT_CODE(a.ShutdownSend(), StatusCode::kOk);
  });
  for (int i = 0; i < kMessages; ++i) EXPECT_RECEIVES(a, Pattern(i * 3, i));
  sending.join();
  echo.join();
}

// ---- Descriptors.

TEST_P(ConnectionTest, EveryEndIsCloseOnExec) {
  EXPECT_EQ(fcntl(receiver().fd(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(sender().fd(), F_GETFD), FD_CLOEXEC);
  absl::StatusOr<Connection> other =
      Connection::FromFd(UniqueFd(fcntl(receiver().fd(), F_DUPFD, 0)));
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(fcntl(other->fd(), F_GETFD), FD_CLOEXEC);
}

TEST_P(ConnectionTest, FromFdKnowsTheDirection) {
  absl::StatusOr<Connection> reader =
      Connection::FromFd(UniqueFd(receiver().Release()->Release()));
  absl::StatusOr<Connection> writer =
      Connection::FromFd(UniqueFd(sender().Release()->Release()));
  ASSERT_TRUE(reader.ok() && writer.ok());
  EXPECT_TRUE(reader->readable());
  EXPECT_EQ(reader->writable(), duplex());
  EXPECT_EQ(writer->readable(), duplex());
  EXPECT_TRUE(writer->writable());
  EXPECT_SENDS(*writer, "x");
  EXPECT_RECEIVES(*reader, "x");
}

TEST_P(ConnectionTest, MoveLeavesAClosedConnection) {
  const int fd = receiver().fd();
  Connection moved(std::move(receiver()));
  EXPECT_EQ(moved.fd(), fd);
  EXPECT_CODE(receiver().Receive().status(),  // NOLINT(bugprone-use-after-move)
              StatusCode::kFailedPrecondition);
  EXPECT_SENDS(sender(), "x");
  EXPECT_RECEIVES(moved, "x");
  // Assigning over an end closes it.
  moved = std::move(sender());
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
}

// ---- Pipes that lack what others have.

// Whether the kernel reads this empty pipe with a flag that some pipes lack.
bool HasNowait(int pipe_fd) {
  char byte;
  const iovec part = {.iov_base = &byte, .iov_len = 1};
  return preadv2(pipe_fd, &part, 1, -1, RWF_NOWAIT) < 0 && errno == EAGAIN;
}

absl::StatusOr<Connection> Reopen(const Connection& end, int flags) {
  return Connection::FromFd(UniqueFd(open(
      absl::StrCat("/proc/self/fd/", end.fd()).c_str(), flags | O_CLOEXEC)));
}

TEST(PipeTest, WhatWasOpenedByANameHasTimeOuts) {
  auto ends = Connection::CreatePair(/*duplex=*/false);
  ASSERT_TRUE(ends.ok());
  absl::StatusOr<Connection> reader = Reopen(ends->first, O_RDONLY);
  absl::StatusOr<Connection> writer = Reopen(ends->second, O_WRONLY);
  ASSERT_TRUE(reader.ok() && writer.ok());
  EXPECT_CODE(reader->Receive(kShort).status(), StatusCode::kDeadlineExceeded);
  EXPECT_CODE(writer->Send("x", kShort), StatusCode::kOk);
  EXPECT_RECEIVES(*reader, "x");
  const absl::Time start = absl::Now();
  EXPECT_CODE(writer->Send(Pattern(5 * kMebibyte), kShort),
              StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - start, kShort);
}

// They would have to ask by poll before each read and write.
TEST(PipeTest, WhatOnePipeLacksOthersHave) {
  auto ends = Connection::CreatePair(/*duplex=*/false);
  ASSERT_TRUE(ends.ok());
  if (!HasNowait(ends->first.fd())) GTEST_SKIP() << "no pipe has RWF_NOWAIT";
  absl::StatusOr<Connection> reader = Reopen(ends->first, O_RDONLY);
  absl::StatusOr<Connection> writer = Reopen(ends->second, O_WRONLY);
  ASSERT_TRUE(reader.ok() && writer.ok());
  EXPECT_CODE(writer->Send("x", patience), StatusCode::kOk);
  EXPECT_RECEIVES(*reader, "x");
  Child child = Child::Fork([&] {
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_poll, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program = {.len = std::size(filter), .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
      return 1;
    }
    return ends->second.Send("y", patience).ok() &&
                   ends->first.Receive(patience).ok()
               ? 0
               : 2;
  });
  EXPECT_EQ(child.Wait(), 0);
}

// A buffer that cannot grow is as large as it can be.
TEST(PipeTest, ADescriptorThatIsNoPipeAnyMore) {
  auto ends = Connection::CreatePair(/*duplex=*/false);
  ASSERT_TRUE(ends.ok());
  Connection& writer = ends->second;
  const UniqueFd other(open("/dev/null", O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(dup3(other.get(), writer.fd(), O_CLOEXEC), writer.fd());
  // Whatever it says about it; but it does not hang.
  (void)writer.Send(Pattern(kMebibyte), patience);
}

absl::Status FromFdError(int fd) {
  return Connection::FromFd(UniqueFd(fd)).status();
}

TEST(FromFdTest, RefusesWhatIsNoStream) {
  EXPECT_CODE(FromFdError(open("/dev/null", O_RDWR | O_CLOEXEC)),
              StatusCode::kInvalidArgument);
  EXPECT_CODE(FromFdError(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
              StatusCode::kInvalidArgument);
  EXPECT_CODE(FromFdError(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)),
              StatusCode::kInvalidArgument);
  EXPECT_FALSE(FromFdError(-1).ok());
}

TEST(FromFdTest, RefusesAListeningSocket) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr address = {.sa_family = AF_UNIX, .sa_data = {}};
  // A name of the kernel's choice.
  ASSERT_EQ(bind(fd, &address, sizeof(address.sa_family)), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  EXPECT_CODE(FromFdError(fd), StatusCode::kInvalidArgument);
}

// Four bytes of header read from a packet would drop the payload.
TEST(FromFdTest, RefusesAPipeInPacketMode) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_DIRECT | O_CLOEXEC), 0);
  EXPECT_CODE(FromFdError(fds[1]), StatusCode::kInvalidArgument);
  close(fds[0]);
}

}  // namespace
}  // namespace ipc::pipe
