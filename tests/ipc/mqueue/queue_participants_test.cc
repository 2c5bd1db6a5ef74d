// Many participants at a time, up to all that there can be; who comes after
// they have come and gone for ever; and who forks while others send.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/policy.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"
#include "ipc/mqueue/slot_word.h"
#include "tests/ipc/mqueue/numbered_message.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

using ::testing::HasSubstr;

// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(60);

UniqueFd Duplicate(const Queue& queue) {
  return UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0));
}

constexpr uint64_t kPerPeer = 20;

struct Tally {
  std::atomic<uint64_t> bad;
  std::atomic<uint8_t> seen[SlotWord::kMaxParticipants][kPerPeer];
};

class QueueParticipantsTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  QueueParticipantsTest() {
    // A socket for each child.
    rlimit limit;
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    void* memory = mmap(nullptr, sizeof(Tally), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    tally_ = new (memory) Tally;
  }
  ~QueueParticipantsTest() override { munmap(tally_, sizeof(Tally)); }

  // Sends a message and receives one, perhaps another's, again and again: there
  // is always one for each who receives.
  bool Exchange(Queue& queue, uint64_t peer) {
    for (uint64_t n = 0; n < kPerPeer; ++n) {
      if (!queue.Send(NumberedMessage{peer, n}.Encode(), kPatience).ok()) {
        return false;
      }
      absl::StatusOr<std::string> text = queue.Receive(kPatience);
      if (!text.ok()) return false;
      const std::optional<NumberedMessage> message =
          NumberedMessage::Decode(*text);
      if (!message.has_value() || message->sender >= GetParam() ||
          message->number >= kPerPeer) {
        tally_->bad.fetch_add(1);
        return false;
      }
      tally_->seen[message->sender][message->number].fetch_add(1);
    }
    return true;
  }

  void CheckEachCameOnce() {
    EXPECT_EQ(tally_->bad, 0u);
    for (uint64_t peer = 1; peer < GetParam(); ++peer) {
      for (uint64_t n = 0; n < kPerPeer; ++n) {
        ASSERT_EQ(tally_->seen[peer][n], 1) << peer << ", " << n;
      }
    }
  }

  void CheckThatOneMoreIsRefused(Queue& queue) {
    const absl::Status status = Queue::FromFd(Duplicate(queue)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(status.message(),
                HasSubstr(absl::StrCat("all ", GetParam(), " participants")));
  }

  Queue queue_ =
      *Queue::CreateAnonymous({.slots = 1024, .participants = GetParam()});
  Tally* tally_;
};

// What a program is likely to have, what Options::participants has unless told,
// and all that there can be.
INSTANTIATE_TEST_SUITE_P(Participants, QueueParticipantsTest,
                         ::testing::Values(65, 128,
                                           SlotWord::kMaxParticipants));

TEST_P(QueueParticipantsTest, AsManyProcesses) {
  // Nobody waits for a dead one here, and to look is a system call for each.
  QueueTestPeer::SetParkTick(queue_, kPatience);
  std::vector<Child> peers;
  for (uint64_t peer = 1; peer < GetParam(); ++peer) {
    peers.push_back(Child::Fork([&](Child::Side side) {
      if (!QueueTestPeer::attachment(queue_).Self().ok()) return 1;
      // All are attached before the first one begins.
      if (!side.Tell() || !side.Hear()) return 2;
      if (!Exchange(queue_, peer) || !side.Tell()) return 3;
      // To be killed, attached.
      Child::StopSelf();
      return 4;
    }));
  }
  for (const Child& peer : peers) ASSERT_TRUE(peer.Hear());
  CheckThatOneMoreIsRefused(queue_);
  for (const Child& peer : peers) ASSERT_TRUE(peer.Tell());
  for (const Child& peer : peers) ASSERT_TRUE(peer.Hear());
  CheckEachCameOnce();
  CheckThatOneMoreIsRefused(queue_);
  for (const Child& peer : peers) peer.AwaitStop();
  for (const Child& peer : peers) peer.Kill();
  EXPECT_TRUE(Queue::FromFd(Duplicate(queue_)).ok()) << "all others are dead";
  while (QueueTestPeer::attachment(queue_).ReapAll() > 0) continue;
  EXPECT_EQ(queue_.stats().reaped, GetParam() - 1);
}

TEST_P(QueueParticipantsTest, AsManyObjects) {
  std::vector<Queue> objects;
  for (uint64_t peer = 1; peer < GetParam(); ++peer) {
    absl::StatusOr<Queue> object = Queue::FromFd(Duplicate(queue_));
    ASSERT_TRUE(object.ok()) << object.status();
    objects.push_back(*std::move(object));
  }
  CheckThatOneMoreIsRefused(queue_);
  for (uint64_t peer = 1; peer < GetParam(); ++peer) {
    ASSERT_TRUE(Exchange(objects[peer - 1], peer));
  }
  CheckEachCameOnce();
  objects.pop_back();
  EXPECT_TRUE(Queue::FromFd(Duplicate(queue_)).ok());
}

// The first call of a forked child attaches it, if it can.
TEST_P(QueueParticipantsTest, ForkedChildBeyondThemIsRefused) {
  std::vector<Queue> objects;
  for (uint64_t peer = 1; peer < GetParam(); ++peer) {
    objects.push_back(*Queue::FromFd(Duplicate(queue_)));
  }
  Child child = Child::Fork([&] {
    return queue_.Send("x").code() == absl::StatusCode::kResourceExhausted &&
                   queue_.Receive().status().code() ==
                       absl::StatusCode::kResourceExhausted
               ? 0
               : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
  objects.pop_back();
  Child other = Child::Fork([&] { return queue_.Send("x").ok() ? 0 : 1; });
  EXPECT_EQ(other.Wait(), 0);
  EXPECT_EQ(*queue_.Receive(), "x");
}

// A word has the last 20 bits of its owner's epoch. Here they come round: those
// before, at, and behind the step are all zero or all ones.
class QueueEpochTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  static constexpr uint32_t kPeriod = 1u << SlotWord::kEpochBits;

  // The next one to attach at `index` has this epoch.
  static void SetEpoch(Queue& queue, uint32_t index, uint32_t epoch) {
    reinterpret_cast<std::atomic<uint64_t>*>(
        QueueTestPeer::bytes(queue).data() +
        QueueTestPeer::geometry(queue).participants_offset)[index]
        .store(uint64_t{epoch} << 32);
  }
};

INSTANTIATE_TEST_SUITE_P(Epochs, QueueEpochTest,
                         ::testing::Values((1u << SlotWord::kEpochBits) - 1,
                                           1u << SlotWord::kEpochBits,
                                           (1u << SlotWord::kEpochBits) + 7,
                                           ~0u - 1, ~0u));

TEST_P(QueueEpochTest, TheDeadAreReaped) {
  for (const Delivery delivery : {Delivery::kAutoAck, Delivery::kExplicitAck}) {
    Queue queue = *Queue::CreateAnonymous({.slots = 4, .delivery = delivery});
    SetEpoch(queue, 1, GetParam());
    // Three in a row, in the middle of a send, of a receive, and with a
    // message.
    const auto die = [&](const std::function<bool()>& work) {
      Child dead = Child::Fork([&] {
        if (!work()) return 1;
        Child::StopSelf();
        return 2;
      });
      dead.AwaitStop();
      dead.Kill();
    };
    SlotRing::Claim claim;
    die([&] {
      return QueueTestPeer::BeginSend(queue, &claim) == SlotRing::Outcome::kOk;
    });
    const SlotWord word = QueueTestPeer::ring(queue).Load(0);
    EXPECT_TRUE(word.IsOwnedBy({1, GetParam()}));
    ASSERT_TRUE(queue.Send("message", kPatience).ok());
    EXPECT_EQ(*queue.Receive(kPatience), "message");
    if (delivery == Delivery::kExplicitAck) {
      EXPECT_TRUE(queue.TaskDone().ok());
    }
    EXPECT_EQ(queue.stats().skipped, 1u);
    ASSERT_TRUE(queue.Send("again", kPatience).ok());
    die([&] {
      return QueueTestPeer::BeginReceive(queue, &claim) ==
             SlotRing::Outcome::kOk;
    });
    die([&] {
      absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
      if (!message.ok() || !message->redelivered()) return false;
      if (delivery == Delivery::kAutoAck) return queue.Send("again").ok();
      new Message(*std::move(message));  // dies with it
      return true;
    });
    absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_EQ(message->text(), "again");
    EXPECT_TRUE(message->Ack().ok());
    QueueTestPeer::attachment(queue).ReapAll();
    EXPECT_EQ(queue.stats().reaped, 3u);
  }
}

// A reaper that was stopped for a whole round of epochs, and goes on with the
// one it knew: the words of the living one look like those of the dead one.
TEST_P(QueueEpochTest, NamesakeIsNotSwept) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4,
                                         .message_bytes = 1000,
                                         .arena_bytes = 8192,
                                         .block_bytes = 1024});
  SetEpoch(queue, 1, GetParam());
  Queue living = *Queue::FromFd(Duplicate(queue));
  const Participant self = *QueueTestPeer::attachment(living).Self();
  ASSERT_EQ(self, (Participant{1, GetParam()}));
  SlotRing::Claim claim;
  ASSERT_EQ(QueueTestPeer::BeginSend(living, &claim), SlotRing::Outcome::kOk);
  absl::StatusOr<Loan> loan = living.TryLoan(1000);
  ASSERT_TRUE(loan.ok());
  const Participant namesake = {1, GetParam() - kPeriod};
  ASSERT_TRUE(claim.word.IsOwnedBy(namesake));
  Arena& arena = QueueTestPeer::arena(queue);
  QueueTestPeer::ring(queue).Sweep(namesake, &arena);
  arena.Sweep(namesake, false, QueueTestPeer::participants(queue));
  EXPECT_TRUE(QueueTestPeer::ring(living).CommitSend(claim));
  EXPECT_TRUE(living.Send(*std::move(loan)).ok());
}

// A thread sends and receives while another one forks: what it is in the middle
// of is not the child's, which uses the queue as any other process.
TEST(QueueForkTest, WhileAnotherThreadSends) {
  for (const Delivery delivery : {Delivery::kAutoAck, Delivery::kExplicitAck}) {
    Queue queue = *Queue::CreateAnonymous({.slots = 4, .delivery = delivery});
    const bool acks = delivery == Delivery::kExplicitAck;
    // Each sends one and receives one, perhaps the other's: there is always one
    // for each who receives.
    const auto exchange = [&](const char* text) -> std::string {
      if (!queue.Send(text, kPatience).ok()) return "not sent";
      absl::StatusOr<std::string> received = queue.Receive(kPatience);
      if (!received.ok() || (acks && !queue.TaskDone().ok()))
        return "not taken";
      return *received;
    };
    std::atomic<bool> stop = false;
    std::atomic<int> wrong = 0, childrens = 0;
    std::thread busy([&] {
      while (!stop) {
        const std::string text = exchange("busy");
        wrong += text != "busy" && text != "child" ? 1 : 0;
        childrens += text == "child" ? 1 : 0;
      }
    });
    constexpr int kChildren = 50;
    for (int i = 0; i < kChildren; ++i) {
      Child child = Child::Fork([&] {
        const std::string text = exchange("child");
        return text == "child" ? 10 : text == "busy" ? 11 : 1;
      });
      const int status = child.Wait();
      EXPECT_TRUE(status == 10 || status == 11) << status;
      childrens += status == 10 ? 1 : 0;
    }
    stop.store(true);
    busy.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(childrens, kChildren);
    EXPECT_EQ(queue.stats().pending, 0u);
    EXPECT_EQ(queue.stats().unacked, 0u);
  }
}

}  // namespace
}  // namespace ipc::mqueue
