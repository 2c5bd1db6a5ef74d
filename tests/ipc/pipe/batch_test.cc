// Messages in chunks and many at a time.
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/pipe/connection.h"
#include "ipc/pipe/frame.h"
#include "tests/testing/child.h"

namespace ipc::pipe {
namespace {

using testing::Child;

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Minutes(5);
constexpr absl::Duration kShort = absl::Milliseconds(20);

std::string Pattern(size_t size, unsigned start = 0) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i * 31 + i / 251 + start) & 0xff);
  }
  return text;
}

// Many of several sizes, some larger than a batch is received with.
std::vector<std::string> Messages(int count) {
  std::vector<std::string> messages;
  for (int i = 0; i < count; ++i) {
    const size_t size = i % 500 == 499 ? 200'000 : static_cast<size_t>(i % 90);
    messages.push_back(Pattern(size, static_cast<unsigned>(i)));
  }
  return messages;
}

std::vector<absl::string_view> Views(const std::vector<std::string>& messages) {
  return {messages.begin(), messages.end()};
}

class BatchTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { Create({}); }
  void Create(const Connection::Options& options) {
    auto ends = Connection::CreatePair(GetParam(), options);
    ASSERT_TRUE(ends.ok()) << ends.status();
    receiver_.emplace(std::move(ends->first));
    sender_.emplace(std::move(ends->second));
  }
  std::optional<Connection> receiver_;
  std::optional<Connection> sender_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, BatchTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "Socketpair" : "Pipe";
                         });

TEST_P(BatchTest, ACordOfManyChunksIsOneMessage) {
  // More chunks than one writev takes, and more bytes than the kernel's buffer.
  std::deque<std::string> chunks;  // outlive the Cord, and stay where they are
  absl::Cord cord;
  std::string flat;
  for (unsigned i = 0; i < 3000; ++i) {
    chunks.push_back(Pattern(600, i));
    absl::StrAppend(&flat, chunks.back());
    // Appending a small Cord or string would copy it into the last chunk.
    cord.Append(
        absl::MakeCordFromExternal(absl::string_view(chunks.back()), [] {}));
  }
  Child child = Child::Fork([&] {
    receiver_->Close();
    return sender_->Send(cord, kLong).ok() && sender_->Send("end").ok() ? 0 : 1;
  });
  sender_->Close();
  absl::StatusOr<absl::Cord> received = receiver_->ReceiveCord(kLong);
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_TRUE(*received == flat) << received->size();
  EXPECT_EQ(*receiver_->Receive(kLong), "end");
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(BatchTest, ALargeCordIsReceivedInChunks) {
  const std::string message = Pattern(5'000'000);
  Child child = Child::Fork([&] {
    receiver_->Close();
    return sender_->Send(message, kLong).ok() ? 0 : 1;
  });
  sender_->Close();
  absl::StatusOr<absl::Cord> received = receiver_->ReceiveCord(kLong);
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_TRUE(*received == message) << received->size();
  EXPECT_FALSE(received->TryFlat().has_value());
  EXPECT_TRUE(absl::IsOutOfRange(receiver_->ReceiveCord(kLong).status()));
  EXPECT_EQ(child.Wait(), 0);
}

// Whatever a call that timed out had received, by any of the ways.
TEST_P(BatchTest, ACordGoesOnAfterATimeOut) {
  const std::string message = Pattern(300'000);
  std::string frame;
  AppendFrame(message, frame);
  const int sender = sender_->fd();
  for (const size_t split : {2, 4, 60'000, 60'004}) {
    ASSERT_EQ(write(sender, frame.data(), split), static_cast<ssize_t>(split));
    EXPECT_TRUE(
        absl::IsDeadlineExceeded(receiver_->ReceiveCord(kShort).status()));
    if (split > 4) {
      EXPECT_TRUE(absl::IsDeadlineExceeded(
          receiver_->Receive(absl::ZeroDuration()).status()));
    }
    std::thread rest([&] {
      for (size_t at = split; at < frame.size();) {
        const ssize_t n = write(sender, frame.data() + at, frame.size() - at);
        ASSERT_GT(n, 0);
        at += static_cast<size_t>(n);
      }
    });
    absl::StatusOr<absl::Cord> received = receiver_->ReceiveCord(kLong);
    rest.join();
    ASSERT_TRUE(received.ok()) << received.status();
    EXPECT_TRUE(*received == message) << received->size();
  }
}

TEST_P(BatchTest, AnEndInsideACordIsDataLoss) {
  std::string frame;
  AppendFrame(Pattern(300'000), frame);
  ASSERT_EQ(write(sender_->fd(), frame.data(), 60'004), 60'004);
  sender_->Close();
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = receiver_->ReceiveCord(kLong).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("60000 of the 300000 bytes"));
  }
}

// Takes gigabytes and seconds: bazel test --test_env=PARLEY_HUGE_MESSAGES=1.
TEST_P(BatchTest, MessagesAboveTwoGibibytes) {
  if (getenv("PARLEY_HUGE_MESSAGES") == nullptr) {
    GTEST_SKIP() << "asked for by --test_env=PARLEY_HUGE_MESSAGES=1";
  }
  constexpr size_t kParts = 2049;
  const std::string part = Pattern(1 << 20);
  constexpr size_t kSize = kParts << 20;
  Create({.max_message_bytes = kSize});
  Child child = Child::Fork([&] {
    receiver_->Close();
    absl::Cord cord;  // the same memory again and again
    for (size_t i = 0; i < kParts; ++i) {
      cord.Append(absl::MakeCordFromExternal(absl::string_view(part), [] {}));
    }
    return sender_->Send(cord, kLong).ok() && sender_->Send(cord, kLong).ok()
               ? 0
               : 1;
  });
  sender_->Close();
  size_t position = 0;
  const auto expect_next = [&](absl::string_view text) {
    while (!text.empty()) {
      const absl::string_view expected =
          absl::string_view(part).substr(position % part.size(), text.size());
      ASSERT_TRUE(text.substr(0, expected.size()) == expected) << position;
      position += expected.size();
      text.remove_prefix(expected.size());
    }
  };
  {
    const absl::StatusOr<absl::Cord> cord = receiver_->ReceiveCord(kLong);
    ASSERT_TRUE(cord.ok()) << cord.status();
    for (const absl::string_view chunk : cord->Chunks()) expect_next(chunk);
    EXPECT_EQ(position, kSize);
  }
  const std::unique_ptr<char[]> buffer(new char[kSize]);
  EXPECT_EQ(*receiver_->ReceiveInto(
                {reinterpret_cast<std::byte*>(buffer.get()), kSize}, kLong),
            kSize);
  position = 0;
  expect_next({buffer.get(), kSize});
  EXPECT_EQ(child.Wait(), 0);
}

// Sent in one piece, so that several senders may share a pipe.
TEST_P(BatchTest, ASmallCordOfManyChunks) {
  std::deque<std::string> chunks;
  absl::Cord cord;
  std::string flat;
  for (unsigned i = 0; i < 200; ++i) {
    chunks.push_back(Pattern(5, i));
    absl::StrAppend(&flat, chunks.back());
    cord.Append(
        absl::MakeCordFromExternal(absl::string_view(chunks.back()), [] {}));
  }
  ASSERT_TRUE(sender_->Send(cord, kLong).ok());
  EXPECT_EQ(*receiver_->Receive(kLong), flat);
}

TEST_P(BatchTest, AnEmptyCordIsAMessage) {
  ASSERT_TRUE(sender_->Send(absl::Cord()).ok());
  EXPECT_EQ(*receiver_->ReceiveCord(kLong), "");
}

TEST_P(BatchTest, ACordBeyondTheLimitIsNotSent) {
  Create({.max_message_bytes = 10});
  EXPECT_TRUE(
      absl::IsResourceExhausted(sender_->Send(absl::Cord("12345678901"))));
  ASSERT_TRUE(sender_->Send(absl::Cord("1234567890")).ok());
  EXPECT_EQ(*receiver_->Receive(kLong), "1234567890");
}

TEST_P(BatchTest, AllOfABatchArriveInOrder) {
  const std::vector<std::string> messages = Messages(5000);
  Child child = Child::Fork([&] {
    receiver_->Close();
    const auto sent = sender_->SendBatch(Views(messages), kLong);
    return sent.ok() && *sent == messages.size() ? 0 : 1;
  });
  sender_->Close();
  std::vector<std::string> received;
  int calls = 0;
  while (true) {
    absl::StatusOr<std::vector<std::string>> some =
        receiver_->ReceiveBatch(kLong);
    if (absl::IsOutOfRange(some.status())) break;
    ASSERT_TRUE(some.ok()) << some.status();
    ASSERT_FALSE(some->empty());
    ++calls;
    for (std::string& message : *some) received.push_back(std::move(message));
  }
  EXPECT_TRUE(received == messages) << received.size();
  EXPECT_LT(calls, 2500);
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(BatchTest, ABatchOfNothingSendsNothing) {
  EXPECT_EQ(*sender_->SendBatch({}), 0u);
  EXPECT_FALSE(*receiver_->Poll());
}

TEST_P(BatchTest, ABatchWithAMessageTooLargeSendsNothing) {
  Create({.max_message_bytes = 10});
  const auto sent = sender_->SendBatch({"1", "12345678901", "2"});
  EXPECT_TRUE(absl::IsResourceExhausted(sent.status())) << sent.status();
  EXPECT_THAT(std::string(sent.status().message()),
              HasSubstr("message 1 of a batch"));
  EXPECT_FALSE(*receiver_->Poll());
  EXPECT_EQ(*sender_->SendBatch({"1", "2"}), 2u);
  EXPECT_THAT(*receiver_->ReceiveBatch(kLong), ElementsAre("1", "2"));
}

// A pipe of one page, so that what fits is known: frames of 1024 bytes, of
// which four fill it.
TEST(PipeBatchTest, SaysHowManyWereSentWhenTheTimeIsUpBetweenTwo) {
  auto ends = Connection::CreatePair(/*duplex=*/false);
  auto& [receiver, sender] = *ends;
  ASSERT_EQ(fcntl(sender.fd(), F_SETPIPE_SZ, 4096), 4096);
  const std::vector<std::string> messages(6, Pattern(1020));
  const auto sent = sender.SendBatch(Views(messages), kShort);
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_EQ(*sent, 4u);
  EXPECT_EQ(receiver.ReceiveBatch(kLong)->size(), 4u);
  // Those that were not may be sent now.
  EXPECT_EQ(*sender.SendBatch({messages[4], messages[5]}, kLong), 2u);
  EXPECT_EQ(receiver.ReceiveBatch(kLong)->size(), 2u);
}

TEST(PipeBatchTest, ATimeOutInsideAMessageTellsHowManyWentBefore) {
  auto ends = Connection::CreatePair(/*duplex=*/false);
  auto& [receiver, sender] = *ends;
  ASSERT_EQ(fcntl(sender.fd(), F_SETPIPE_SZ, 4096), 4096);
  const auto sent =
      sender.SendBatch({Pattern(1000), Pattern(1000), Pattern(5000)}, kShort);
  EXPECT_TRUE(absl::IsDeadlineExceeded(sent.status())) << sent.status();
  EXPECT_THAT(std::string(sent.status().message()),
              HasSubstr("after 2 messages of a batch"));
  EXPECT_TRUE(absl::IsFailedPrecondition(sender.Send("more")));
  EXPECT_EQ(receiver.ReceiveBatch(kLong)->size(), 2u);
}

TEST_P(BatchTest, ReceivesTheRestOfAMessageThatCameInPart) {
  std::string frame;
  AppendFrame("first", frame);
  AppendFrame("second", frame);
  const size_t split = frame.size() - 2;
  ASSERT_EQ(write(sender_->fd(), frame.data(), split),
            static_cast<ssize_t>(split));
  EXPECT_THAT(*receiver_->ReceiveBatch(kLong), ElementsAre("first"));
  // The descriptor is not at a boundary now.
  EXPECT_TRUE(absl::IsFailedPrecondition(receiver_->Release().status()));
  EXPECT_TRUE(
      absl::IsDeadlineExceeded(receiver_->ReceiveBatch(kShort).status()));
  ASSERT_EQ(write(sender_->fd(), frame.data() + split, 2), 2);
  EXPECT_TRUE(*receiver_->Poll(kLong));
  EXPECT_EQ(*receiver_->Receive(kLong), "second");
}

TEST_P(BatchTest, WholeMessagesComeBeforeTheErrorBehindThem) {
  std::string bytes;
  AppendFrame("whole", bytes);
  bytes += "\xff\xff\xff\xfe";
  ASSERT_EQ(write(sender_->fd(), bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
  EXPECT_THAT(*receiver_->ReceiveBatch(kLong), ElementsAre("whole"));
  EXPECT_FALSE(receiver_->ReceiveBatch(kLong).ok());
}

TEST_P(BatchTest, APeerThatDiesInsideAMessageIsDataLoss) {
  std::string bytes;
  AppendFrame("whole", bytes);
  AppendFrame("part", bytes);
  ASSERT_EQ(write(sender_->fd(), bytes.data(), bytes.size() - 1),
            static_cast<ssize_t>(bytes.size() - 1));
  sender_->Close();
  EXPECT_THAT(*receiver_->ReceiveBatch(kLong), ElementsAre("whole"));
  EXPECT_TRUE(absl::IsDataLoss(receiver_->ReceiveBatch(kLong).status()));
}

TEST_P(BatchTest, NobodyLeftToReceiveIsUnavailable) {
  receiver_->Close();
  EXPECT_TRUE(absl::IsUnavailable(sender_->SendBatch({"1", "2"}).status()));
}

}  // namespace
}  // namespace ipc::pipe
