// What a ring promises while nobody misbehaves and nobody is killed. For that,
// see ring_kill_test.cc and ring_hostile_test.cc.
#include "ipc/pipe/ring.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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
#include "ipc/pipe/ring_layout.h"
#include "ipc/pipe/ring_memory.h"
#include "tests/ipc/pipe/ring_test_peer.h"
#include "tests/ipc/pipe/signal_storm.h"
#include "tests/testing/child.h"

namespace ipc::pipe {
namespace {

using testing::Child;

using ::testing::HasSubstr;

// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr absl::Duration kNow = absl::ZeroDuration();
constexpr size_t kPage = 4096;

template <typename T>
absl::StatusCode CodeOf(const absl::StatusOr<T>& result) {
  return result.status().code();
}
absl::StatusCode CodeOf(const absl::Status& status) { return status.code(); }

UniqueFd Dup(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

// A ring with both ends in this process.
struct Ends {
  explicit Ends(uint64_t capacity = kPage)
      : fd(*CreateRing({.capacity_bytes = capacity})),
        sender(*RingSender::FromFd(Dup(fd.get()))),
        receiver(*RingReceiver::FromFd(Dup(fd.get()))) {}

  UniqueFd fd;
  RingSender sender;
  RingReceiver receiver;
};

std::string Pattern(size_t size, size_t seed) {
  std::string message(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    message[i] = static_cast<char>((seed * 31 + i * 7 + i / 256) & 0xff);
  }
  return message;
}

std::string ReceiveText(RingReceiver& receiver,
                        absl::Duration timeout = kPatience) {
  const absl::StatusOr<View> view = receiver.Receive(timeout);
  return view.ok() ? std::string(view->text()) : view.status().ToString();
}

// How many messages of `size` the ring takes now.
int Fill(RingSender& sender, size_t size) {
  int n = 0;
  while (sender.Send(Pattern(size, static_cast<size_t>(n)), kNow).ok()) ++n;
  return n;
}

TEST(RingTest, MessagesArriveInOrderWithTheirTypes) {
  Ends ends;
  ASSERT_TRUE(ends.sender.Send("one", kNow, 1).ok());
  ASSERT_TRUE(ends.sender.Send("", kNow, ~0u).ok());
  ASSERT_TRUE(ends.sender.Send("three").ok());
  for (const auto& [text, type] :
       {std::pair<std::string, uint32_t>{"one", 1}, {"", ~0u}, {"three", 0}}) {
    const absl::StatusOr<View> view = ends.receiver.Receive(kNow);
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(view->text(), text);
    EXPECT_EQ(view->type(), type);
    EXPECT_FALSE(view->redelivered());
  }
  EXPECT_EQ(CodeOf(ends.receiver.Receive(kNow)),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(RingTest, EverySizeAtEveryOffset) {
  Ends ends;
  size_t seed = 0;
  // Each size shifts the next ones, so that all of them cross the end.
  for (int lap = 0; lap < 3; ++lap) {
    for (size_t size = 0; size <= ends.sender.max_message_bytes(); ++size) {
      const std::string message = Pattern(size, ++seed);
      ASSERT_TRUE(ends.sender.Send(message, kNow).ok()) << size;
      const absl::StatusOr<View> view = ends.receiver.Receive(kNow);
      ASSERT_TRUE(view.ok()) << view.status();
      ASSERT_EQ(view->text(), message);
    }
  }
}

TEST(RingTest, WhatCrossesTheEndIsContiguous) {
  Ends ends;
  int crossed = 0;
  const std::byte* first = nullptr;
  for (int i = 0; i < 100; ++i) {
    absl::StatusOr<Reservation> room = ends.sender.Reserve(300, kNow);
    ASSERT_TRUE(room.ok());
    if (first == nullptr) first = room->span().data();
    const std::ptrdiff_t offset = room->span().data() - first + 8;
    crossed += offset + 300 > static_cast<std::ptrdiff_t>(kPage) ? 1 : 0;
    std::memset(room->span().data(), i, 300);
    ASSERT_TRUE(room->Commit().ok());
    const absl::StatusOr<View> view = ends.receiver.Receive(kNow);
    ASSERT_TRUE(view.ok());
    EXPECT_EQ(view->text(), std::string(300, static_cast<char>(i)));
  }
  EXPECT_GT(crossed, 3);
}

TEST(RingTest, LongPayloadsBeginWithACacheLine) {
  Ends ends;
  for (const size_t size : {8, 512, 513, 1000, 24, 2000}) {
    absl::StatusOr<Reservation> room = ends.sender.Reserve(size, kNow);
    ASSERT_TRUE(room.ok());
    EXPECT_EQ(room->span().size(), size);
    const auto address = reinterpret_cast<uintptr_t>(room->span().data());
    EXPECT_EQ(address % (size < 512 ? 8 : 64), 0u);
    std::fill(room->span().begin(), room->span().end(), std::byte{1});
    ASSERT_TRUE(room->Commit().ok());
    const absl::StatusOr<View> view = ends.receiver.Receive(kNow);
    ASSERT_TRUE(view.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data().data()) % 64,
              address % 64);
  }
}

TEST(RingTest, TheRingTakesExactlyItsCapacity) {
  Ends ends;
  EXPECT_EQ(ends.sender.capacity_bytes(), kPage);
  // 56 bytes and a header of 8.
  EXPECT_EQ(Fill(ends.sender, 56), 64);
  const absl::Status full = ends.sender.Send("", kNow);
  EXPECT_EQ(CodeOf(full), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_EQ(ReceiveText(ends.receiver), Pattern(56, 0));
  ASSERT_TRUE(ends.sender.Send(Pattern(56, 64), kNow).ok());
  EXPECT_EQ(CodeOf(ends.sender.Send("", kNow)),
            absl::StatusCode::kResourceExhausted);
  for (size_t i = 1; i <= 64; ++i) {
    EXPECT_EQ(ReceiveText(ends.receiver), Pattern(56, i));
  }
}

TEST(RingTest, TheLongestMessageFitsAndALongerOneNeverWill) {
  Ends ends;
  const size_t longest = ends.sender.max_message_bytes();
  EXPECT_EQ(longest, kPage - 64);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(ends.sender.Send(Pattern(longest, 1), kNow).ok());
    EXPECT_EQ(ReceiveText(ends.receiver), Pattern(longest, 1));
    ASSERT_TRUE(ends.sender.Send("shift", kNow).ok());
    EXPECT_EQ(ReceiveText(ends.receiver), "shift");
  }
  for (const size_t size : {longest + 1, kPage, ~size_t{0}, ~size_t{0} - 8}) {
    const absl::Status status = ends.sender.Reserve(size, kNow).status();
    EXPECT_EQ(CodeOf(status), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("at most ", longest)));
  }
}

TEST(RingTest, DroppingAReservationSendsNothing) {
  Ends ends;
  {
    absl::StatusOr<Reservation> room = ends.sender.Reserve(1000, kNow);
    ASSERT_TRUE(room.ok());
    std::fill(room->span().begin(), room->span().end(), std::byte{0xff});
  }
  EXPECT_EQ(CodeOf(ends.receiver.Receive(kNow)),
            absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(ends.sender.Send("after", kNow).ok());
  EXPECT_EQ(ReceiveText(ends.receiver), "after");
}

TEST(RingTest, CommittingLessGivesTheRestBack) {
  Ends ends;
  for (int i = 0; i < 100; ++i) {
    absl::StatusOr<Reservation> room = ends.sender.Reserve(4000, kNow);
    ASSERT_TRUE(room.ok()) << i << room.status();
    std::memcpy(room->span().data(), "little", 6);
    room->set_type(7);
    EXPECT_EQ(CodeOf(room->Commit(4001)), absl::StatusCode::kInvalidArgument);
    ASSERT_TRUE(room->Commit(6).ok());
    EXPECT_EQ(CodeOf(room->Commit(6)), absl::StatusCode::kFailedPrecondition);
    const absl::StatusOr<View> view = ends.receiver.Receive(kNow);
    ASSERT_TRUE(view.ok());
    EXPECT_EQ(view->text(), "little");
    EXPECT_EQ(view->type(), 7u);
  }
}

TEST(RingTest, OneReservationAtATime) {
  Ends ends;
  absl::StatusOr<Reservation> room = ends.sender.Reserve(8, kNow);
  ASSERT_TRUE(room.ok());
  EXPECT_EQ(CodeOf(ends.sender.Reserve(8, kNow)),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(ends.sender.Send("", kNow)),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(room->Commit().ok());
  EXPECT_TRUE(ends.sender.Reserve(8, kNow).ok());
}

TEST(RingTest, WhatIsStagedArrivesWithTheNextCommit) {
  Ends ends;
  for (const char* text : {"a", "b"}) {
    absl::StatusOr<Reservation> room = ends.sender.Reserve(1, kNow);
    std::memcpy(room->span().data(), text, 1);
    ASSERT_TRUE(room->Stage().ok());
  }
  EXPECT_EQ(CodeOf(ends.receiver.Receive(kNow)),
            absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(ends.sender.Send("c", kNow).ok());
  for (const char* text : {"a", "b", "c"}) {
    EXPECT_EQ(ReceiveText(ends.receiver), text);
  }
}

TEST(RingTest, WhatIsStagedDoesNotBlockItsOwnSender) {
  Ends ends;
  size_t sent = 0;
  absl::StatusOr<Reservation> room = ends.sender.Reserve(56, kNow);
  for (; room.ok(); room = ends.sender.Reserve(56, kNow)) {
    ASSERT_TRUE(room->Stage().ok());
    ++sent;
  }
  EXPECT_EQ(CodeOf(room), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(sent, 64u);
  absl::StatusOr<Batch> batch = ends.receiver.ReceiveBatch(kNow);
  ASSERT_TRUE(batch.ok());
  while (batch->Next()) --sent;
  EXPECT_EQ(sent, 0u);
}

TEST(RingTest, ABatchOfMoreThanTheRingTakesIsSentInParts) {
  Ends ends;
  std::vector<std::string> texts;
  for (size_t i = 0; i < 500; ++i) texts.push_back(Pattern(i, i));
  const std::vector<absl::string_view> messages(texts.begin(), texts.end());
  std::thread sender([&] {
    const absl::StatusOr<size_t> sent =
        ends.sender.SendBatch(messages, kPatience);
    ASSERT_TRUE(sent.ok()) << sent.status();
    EXPECT_EQ(*sent, messages.size());
  });
  for (size_t i = 0; i < texts.size();) {
    absl::StatusOr<Batch> batch = ends.receiver.ReceiveBatch(kPatience);
    ASSERT_TRUE(batch.ok()) << batch.status();
    while (batch->Next()) ASSERT_EQ(batch->text(), texts[i++]);
  }
  sender.join();
}

TEST(RingTest, ABatchThatDoesNotFitIsSentInPart) {
  Ends ends;
  const std::string text(1000, 'x');
  const std::vector<absl::string_view> messages(10, text);
  EXPECT_EQ(*ends.sender.SendBatch(messages, kNow), 3u);
  EXPECT_EQ(CodeOf(ends.sender.SendBatch(messages, kNow)),
            absl::StatusCode::kResourceExhausted);
  int n = 0;
  {
    absl::StatusOr<Batch> batch = ends.receiver.ReceiveBatch(kNow);
    while (batch->Next()) ++n;
  }
  EXPECT_EQ(n, 3);
}

TEST(RingTest, ABatchHasWhatWasThere) {
  Ends ends;
  for (const char* text : {"a", "b", "c"}) {
    ASSERT_TRUE(ends.sender.Send(text, kNow).ok());
  }
  {
    absl::StatusOr<Batch> batch = ends.receiver.ReceiveBatch(kNow);
    ASSERT_TRUE(batch.ok());
    ASSERT_TRUE(ends.sender.Send("d", kNow).ok());
    ASSERT_TRUE(batch->Next());
    const absl::string_view first = batch->text();
    ASSERT_TRUE(batch->Next());
    EXPECT_EQ(batch->text(), "b");
    EXPECT_EQ(first, "a");
  }
  // What Next was not called for stays.
  absl::StatusOr<Batch> batch = ends.receiver.ReceiveBatch(kNow);
  std::string rest;
  while (batch->Next()) rest += std::string(batch->text());
  EXPECT_EQ(rest, "cd");
}

TEST(RingTest, ViewsThatEndOutOfOrderAreAcknowledgedInOrder) {
  Ends ends;
  ASSERT_EQ(Fill(ends.sender, 56), 64);
  std::optional<View> a = *ends.receiver.Receive(kNow);
  std::optional<View> b = *ends.receiver.Receive(kNow);
  std::optional<View> c = *ends.receiver.Receive(kNow);
  b.reset();
  EXPECT_EQ(Fill(ends.sender, 56), 0);
  EXPECT_EQ(a->text(), Pattern(56, 0));
  a.reset();
  EXPECT_EQ(Fill(ends.sender, 56), 1);
  EXPECT_EQ(c->text(), Pattern(56, 2));
  c.reset();
  EXPECT_EQ(Fill(ends.sender, 56), 2);
}

TEST(RingTest, MovedEndsReservationsAndViewsGoOn) {
  Ends ends;
  Reservation room = *ends.sender.Reserve(3, kNow);
  RingSender sender = std::move(ends.sender);
  Reservation other = std::move(room);
  std::memcpy(other.span().data(), "abc", 3);
  ASSERT_TRUE(other.Commit().ok());
  View view = *ends.receiver.Receive(kNow);
  RingReceiver receiver = std::move(ends.receiver);
  const View same = std::move(view);
  EXPECT_EQ(same.text(), "abc");
  ASSERT_TRUE(sender.Send("more", kNow).ok());
  EXPECT_EQ(ReceiveText(receiver), "more");
}

TEST(RingTest, TimeOutsAreNotShort) {
  Ends ends;
  constexpr absl::Duration kShort = absl::Milliseconds(30);
  absl::Time begin = absl::Now();
  EXPECT_EQ(CodeOf(ends.receiver.Receive(kShort)),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, kShort);
  Fill(ends.sender, 56);
  begin = absl::Now();
  EXPECT_EQ(CodeOf(ends.sender.Send("", kShort)),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, kShort);
}

// Between the commit and the look at whether the ring is closed the receiver
// may have received the message and closed it.
TEST(RingTest, WhatWasReceivedBeforeTheCloseIsSent) {
  Ends ends;
  const internal::RingMemory memory = *internal::RingMemory::Map(ends.fd.get());
  ends.receiver.Close();
  // As if it had received before what is sent now.
  memory.header().acked.store(internal::RecordSize(1));
  EXPECT_TRUE(ends.sender.Send("1", kNow).ok());
  EXPECT_EQ(CodeOf(ends.sender.Send("2", kNow)),
            absl::StatusCode::kUnavailable);
}

// A thread that has nothing to look after but `end`, and sleeps: it does not
// wake up by itself, so without a wake-up these tests do not end.
template <typename End>
class Sleeper {
 public:
  Sleeper(End& end, const std::function<void()>& body) {
    RingTestPeer::SleepUntilWoken(end);
    thread_ = std::thread([this, body] {
      tid_ = gettid();
      body();
    });
    while (tid_ == 0) std::this_thread::yield();
    RingTestPeer::AwaitSleep(end, tid_);
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  ~Sleeper() { thread_.join(); }

 private:
  std::atomic<pid_t> tid_ = 0;
  std::thread thread_;
};

TEST(RingTest, AReceiverAsleepIsWokenByAMessage) {
  Ends ends;
  const Sleeper sleeper(ends.receiver, [&] {
    EXPECT_EQ(ReceiveText(ends.receiver, absl::InfiniteDuration()), "wake up");
  });
  EXPECT_TRUE(ends.sender.Send("wake up", kNow).ok());
}

TEST(RingTest, ASenderAsleepIsWokenByRoomThatTheHeadDoesNotShow) {
  Ends ends;
  // So that one acknowledged message is less than an eighth.
  ASSERT_EQ(Fill(ends.sender, 56), 64);
  const Sleeper sleeper(ends.sender,
                        [&] { EXPECT_TRUE(ends.sender.Send("room").ok()); });
  EXPECT_EQ(ReceiveText(ends.receiver), Pattern(56, 0));
}

TEST(RingTest, TwoThreadsPassManyMessagesOfAllSizes) {
  Ends ends;
  constexpr size_t kMessages = 30'000;
  std::thread sender([&] {
    for (size_t i = 0; i < kMessages; ++i) {
      ASSERT_TRUE(ends.sender.Send(Pattern(i * 37 % 700, i), kPatience).ok());
    }
    ends.sender.CloseForSend();
  });
  for (size_t i = 0; i < kMessages; ++i) {
    const absl::StatusOr<View> view = ends.receiver.Receive(kPatience);
    ASSERT_TRUE(view.ok()) << view.status();
    ASSERT_EQ(view->text(), Pattern(i * 37 % 700, i));
  }
  EXPECT_EQ(CodeOf(ends.receiver.Receive()), absl::StatusCode::kOutOfRange);
  sender.join();
}

// A timer interrupts all that sleeps.
TEST(RingTest, MessagesAndTimeOutsSurviveAStormOfSignals) {
  Ends ends;
  constexpr size_t kMessages = 2000;
  const SignalStorm storm;
  std::thread sender([&] {
    for (size_t i = 0; i < kMessages; ++i) {
      // The receiver sleeps until this one comes.
      if (i % 20 == 0) absl::SleepFor(absl::Milliseconds(1));
      ASSERT_TRUE(ends.sender.Send(Pattern(500, i), kPatience).ok());
    }
  });
  for (size_t i = 0; i < kMessages; ++i) {
    // And the sender until there is room.
    if (i % 200 == 0) absl::SleepFor(absl::Milliseconds(5));
    ASSERT_EQ(ReceiveText(ends.receiver), Pattern(500, i));
  }
  sender.join();
  constexpr absl::Duration kShort = absl::Milliseconds(30);
  absl::Time begin = absl::Now();
  EXPECT_EQ(CodeOf(ends.receiver.Receive(kShort)),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, kShort);
  Fill(ends.sender, 56);
  begin = absl::Now();
  EXPECT_EQ(CodeOf(ends.sender.Send("", kShort)),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, kShort);
}

TEST(RingTest, ClosedForSendIsDrainedAndThenOutOfRange) {
  Ends ends;
  ASSERT_TRUE(ends.sender.Send("last", kNow).ok());
  absl::StatusOr<Reservation> room = ends.sender.Reserve(1, kNow);
  ASSERT_TRUE(room->Stage().ok());
  ends.sender.CloseForSend();
  ends.sender.CloseForSend();
  EXPECT_EQ(CodeOf(ends.sender.Send("", kNow)),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReceiveText(ends.receiver), "last");
  EXPECT_EQ(ReceiveText(ends.receiver).size(), 1u);
  EXPECT_EQ(CodeOf(ends.receiver.Receive()), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(CodeOf(ends.receiver.TryReceive()), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(CodeOf(RingSender::FromFd(Dup(ends.fd.get()))),
            absl::StatusCode::kFailedPrecondition);
}

TEST(RingTest, ClosingWakesAReceiverAsleep) {
  Ends ends;
  const Sleeper sleeper(ends.receiver, [&] {
    EXPECT_EQ(CodeOf(ends.receiver.Receive()), absl::StatusCode::kOutOfRange);
  });
  { const RingSender gone = std::move(ends.sender); }
}

TEST(RingTest, AClosedReceiverIsUnavailableToTheSender) {
  Ends ends;
  ASSERT_TRUE(ends.sender.Send("before", kNow).ok());
  ends.receiver.Close();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(CodeOf(ends.sender.Send("after", kNow)),
              absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(CodeOf(ends.receiver.Receive(kNow)),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(RingReceiver::FromFd(Dup(ends.fd.get()))),
            absl::StatusCode::kFailedPrecondition);
}

TEST(RingTest, ClosingWakesASenderAsleep) {
  Ends ends;
  Fill(ends.sender, 56);
  const Sleeper sleeper(ends.sender, [&] {
    EXPECT_EQ(CodeOf(ends.sender.Send("")), absl::StatusCode::kUnavailable);
  });
  ends.receiver.Close();
}

TEST(RingTest, WithoutAReceiverTheSenderFillsTheRingAndWaits) {
  RingSender sender = *RingSender::CreateAnonymous({.capacity_bytes = kPage});
  EXPECT_EQ(Fill(sender, 56), 64);
  const absl::Status status = sender.Send("", absl::Milliseconds(1));
  EXPECT_EQ(CodeOf(status), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nobody receives"));
  RingReceiver receiver = *RingReceiver::FromFd(Dup(sender.fd()));
  EXPECT_EQ(ReceiveText(receiver), Pattern(56, 0));
}

TEST(RingTest, ASecondOneIsRefusedForAsLongAsTheFirstLives) {
  Ends ends;
  const absl::Status sender = RingSender::FromFd(Dup(ends.fd.get())).status();
  EXPECT_EQ(CodeOf(sender), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(sender.message()),
              HasSubstr(absl::StrCat("process ", getpid())));
  EXPECT_EQ(CodeOf(RingReceiver::FromFd(Dup(ends.fd.get()))),
            absl::StatusCode::kFailedPrecondition);
  // Also from another process.
  Child child = Child::Fork([&] {
    return CodeOf(RingSender::FromFd(Dup(ends.fd.get()))) ==
                       absl::StatusCode::kFailedPrecondition &&
                   CodeOf(RingReceiver::FromFd(Dup(ends.fd.get()))) ==
                       absl::StatusCode::kFailedPrecondition
               ? 0
               : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
  ASSERT_TRUE(ends.sender.Send("still", kNow).ok());
  EXPECT_EQ(ReceiveText(ends.receiver), "still");
}

TEST(RingTest, WhoHasLeftIsFollowedByAnother) {
  Ends ends;
  ASSERT_TRUE(ends.sender.Send("first", kNow).ok());
  ends.sender.Leave();
  EXPECT_EQ(CodeOf(ends.sender.Send("", kNow)),
            absl::StatusCode::kFailedPrecondition);
  RingSender second = *RingSender::FromFd(Dup(ends.fd.get()));
  ASSERT_TRUE(second.Send("second", kNow).ok());
  EXPECT_EQ(ReceiveText(ends.receiver), "first");
  ends.receiver.Leave();
  EXPECT_EQ(CodeOf(ends.receiver.Receive(kNow)),
            absl::StatusCode::kFailedPrecondition);
  RingReceiver other = *RingReceiver::FromFd(Dup(ends.fd.get()));
  EXPECT_EQ(ReceiveText(other), "second");
  // Nobody has died: the receiver waits for a third one.
  second.Leave();
  EXPECT_EQ(CodeOf(other.Receive(2 * kRingTick)),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(RingTest, WhatWasNotAcknowledgedIsDeliveredAgain) {
  Ends ends;
  for (const char* text : {"a", "b", "c", "d", "e"}) {
    ASSERT_TRUE(ends.sender.Send(text, kNow).ok());
  }
  EXPECT_EQ(ReceiveText(ends.receiver), "a");
  std::optional<View> b = *ends.receiver.Receive(kNow);
  std::optional<View> c = *ends.receiver.Receive(kNow);
  ends.receiver.Leave();
  b.reset();  // too late
  RingReceiver second = *RingReceiver::FromFd(Dup(ends.fd.get()));
  const absl::StatusOr<View> again = second.Receive(kNow);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->text(), "b");
  EXPECT_TRUE(again->redelivered());
  // What had been handed out stays so, though the second one never got to it.
  second.Leave();
  RingReceiver third = *RingReceiver::FromFd(Dup(ends.fd.get()));
  std::string seen;
  while (true) {
    const absl::StatusOr<View> view = third.Receive(kNow);
    if (!view.ok()) break;
    seen += absl::StrCat(view->text(), view->redelivered() ? "+" : "-");
  }
  EXPECT_EQ(seen, "b+c+d-e-");
}

TEST(RingTest, ADeadSenderIsUnavailableOnceAllIsReceived) {
  UniqueFd fd = *CreateRing({.capacity_bytes = kPage});
  RingReceiver receiver = *RingReceiver::FromFd(Dup(fd.get()));
  EXPECT_EQ(CodeOf(receiver.Receive(kNow)),
            absl::StatusCode::kDeadlineExceeded);
  Child child = Child::Fork([&]() -> int {
    absl::StatusOr<RingSender> sender = RingSender::FromFd(Dup(fd.get()));
    (void)sender->Send("legacy");
    absl::StatusOr<Reservation> half = sender->Reserve(1000);
    std::fill(half->span().begin(), half->span().end(), std::byte{0xff});
    _exit(0);  // no destructor closes it
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(ReceiveText(receiver), "legacy");
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = receiver.Receive().status();
    EXPECT_EQ(CodeOf(status), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("has died"));
  }
  RingSender second = *RingSender::FromFd(Dup(fd.get()));
  ASSERT_TRUE(second.Send("heir", kNow).ok());
  EXPECT_EQ(ReceiveText(receiver), "heir");
}

TEST(RingTest, AStoppedSenderIsNotTakenForDead) {
  const UniqueFd fd = *CreateRing({.capacity_bytes = kPage});
  RingReceiver receiver = *RingReceiver::FromFd(Dup(fd.get()));
  Child child = Child::Fork([&] {
    absl::StatusOr<RingSender> sender = RingSender::FromFd(Dup(fd.get()));
    absl::StatusOr<Reservation> room = sender->Reserve(3);
    std::memcpy(room->span().data(), "ab", 2);
    raise(SIGSTOP);
    room->span()[2] = std::byte{'c'};
    return room->Commit().ok() ? 0 : 1;
  });
  int status;
  ASSERT_EQ(waitpid(child.pid(), &status, WUNTRACED), child.pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(CodeOf(receiver.Receive(5 * kRingTick)),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CodeOf(RingSender::FromFd(Dup(fd.get()))),
            absl::StatusCode::kFailedPrecondition);
  kill(child.pid(), SIGCONT);
  EXPECT_EQ(ReceiveText(receiver), "abc");
  EXPECT_EQ(CodeOf(receiver.Receive()), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(RingTest, ADeadReceiverIsFollowedByAnother) {
  UniqueFd fd = *CreateRing({.capacity_bytes = kPage});
  RingSender sender = *RingSender::FromFd(Dup(fd.get()));
  ASSERT_EQ(Fill(sender, 56), 64);
  Child child = Child::Fork([&]() -> int {
    absl::StatusOr<RingReceiver> receiver = RingReceiver::FromFd(Dup(fd.get()));
    { const absl::StatusOr<View> first = receiver->Receive(); }
    const absl::StatusOr<View> second = receiver->Receive();
    _exit(second.ok() ? 0 : 1);
  });
  EXPECT_EQ(child.Wait(), 0);
  // What was acknowledged is free, though no head was published.
  EXPECT_EQ(Fill(sender, 56), 1);
  const absl::Status status = sender.Send("", absl::Milliseconds(1));
  EXPECT_EQ(CodeOf(status), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has died"));
  RingReceiver receiver = *RingReceiver::FromFd(Dup(fd.get()));
  for (const bool again : {true, false}) {
    const absl::StatusOr<View> view = receiver.Receive(kNow);
    ASSERT_TRUE(view.ok());
    EXPECT_EQ(view->text(), Pattern(56, again ? 1 : 2));
    EXPECT_EQ(view->redelivered(), again);
  }
}

TEST(RingTest, AForkedChildDoesNotTouchItsParentsEnds) {
  Ends ends;
  ASSERT_TRUE(ends.sender.Send("one", kNow).ok());
  ASSERT_TRUE(ends.sender.Send("two", kNow).ok());
  std::optional<View> view = *ends.receiver.Receive(kNow);
  ASSERT_TRUE(ends.sender.Reserve(1, kNow)->Stage().ok());
  std::optional<Reservation> room = *ends.sender.Reserve(1, kNow);
  Child child = Child::Fork([&] {
    constexpr auto kRefused = absl::StatusCode::kFailedPrecondition;
    if (CodeOf(room->Commit()) != kRefused) return 1;
    if (CodeOf(ends.sender.Send("child", kNow)) != kRefused) return 2;
    if (CodeOf(ends.sender.Publish()) != kRefused) return 5;
    if (CodeOf(ends.receiver.Receive(kNow)) != kRefused) return 3;
    room.reset();
    view.reset();
    ends.sender.CloseForSend();
    ends.receiver.Close();
    if (CodeOf(RingSender::FromFd(Dup(ends.fd.get()))) != kRefused) return 4;
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  room.reset();
  view.reset();
  ASSERT_TRUE(ends.sender.Send("three", kNow).ok());
  EXPECT_EQ(ReceiveText(ends.receiver), "two");
  EXPECT_EQ(ReceiveText(ends.receiver).size(), 1u);  // staged
  EXPECT_EQ(ReceiveText(ends.receiver), "three");
}

TEST(RingTest, AForkedChildDoesNotKeepADeadParentAlive) {
  const UniqueFd fd = *CreateRing({.capacity_bytes = kPage});
  int born[2], end[2];
  ASSERT_EQ(pipe2(born, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(end, O_CLOEXEC), 0);
  Child parent = Child::Fork([&]() -> int {
    char byte = 0;
    absl::StatusOr<RingSender> sender = RingSender::FromFd(Dup(fd.get()));
    if (!sender.ok()) return 1;
    const pid_t pid = fork();
    if (pid == 0) {
      // Lives until the test closes its end.
      close(end[1]);
      if (write(born[1], &byte, 1) == 1 && read(end[0], &byte, 1) == 0) {
        _exit(0);
      }
      _exit(1);
    }
    _exit(pid > 0 && read(born[0], &byte, 1) == 1 ? 0 : 2);
  });
  EXPECT_EQ(parent.Wait(), 0);
  const absl::Status status = RingSender::FromFd(Dup(fd.get())).status();
  EXPECT_TRUE(status.ok()) << status;
  for (const int pipe_fd : {born[0], born[1], end[0], end[1]}) close(pipe_fd);
}

TEST(RingTest, WhatIsNoRingIsRefused) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd writer(fds[1]);
  EXPECT_EQ(CodeOf(RingSender::FromFd(UniqueFd(fds[0]))),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(RingReceiver::FromFd(UniqueFd()).ok());
  UniqueFd unsealed(memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(unsealed.get(), 2 * kPage), 0);
  EXPECT_FALSE(RingReceiver::FromFd(std::move(unsealed)).ok());
  EXPECT_EQ(CodeOf(CreateRing({.capacity_bytes = uint64_t{1} << 33})),
            absl::StatusCode::kInvalidArgument);
}

TEST(RingTest, TheSizeIsSealed) {
  const UniqueFd fd = *CreateRing();
  EXPECT_NE(ftruncate(fd.get(), 0), 0);
  EXPECT_NE(ftruncate(fd.get(), 1 << 24), 0);
  EXPECT_NE(fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
}

}  // namespace
}  // namespace ipc::pipe
