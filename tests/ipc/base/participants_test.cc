#include "ipc/base/participants.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <set>
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
#include "ipc/base/deadline.h"
#include "ipc/base/memory.h"
#include "ipc/base/unique_fd.h"

namespace ipc {
namespace {

using ::testing::HasSubstr;
using State = ParticipantTable::State;

constexpr uint32_t kCapacity = 64;

// A child process that runs `body` and then waits to be killed; returns once
// `body` has run.
template <typename Body>
pid_t SpawnAndHold(Body body) {
  int ready[2];
  EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    body();
    [[maybe_unused]] const ssize_t n = write(ready[1], "", 1);
    while (true) pause();
  }
  close(ready[1]);
  char byte;
  EXPECT_EQ(read(ready[0], &byte, 1), 1);
  close(ready[0]);
  return pid;
}

// SIGKILL gives up the locks before the parent can reap the process.
void Kill(pid_t pid) {
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  ASSERT_EQ(waitpid(pid, nullptr, 0), pid);
}

class ParticipantsTest : public ::testing::Test {
 protected:
  ParticipantsTest()
      : fd_(*CreateMemory("participants_test", kSize)),
        mapping_(*Mapping::Create(fd_.get(), kSize)),
        table_(words(), kCapacity) {}

  ParticipantTable::Word* words() {
    return reinterpret_cast<ParticipantTable::Word*>(mapping_.data());
  }

  absl::StatusOr<std::unique_ptr<Attachment>> Attach() {
    return Attachment::Create(fd_.get(), table_,
                              [this](Participant p) { swept_.push_back(p); });
  }

  static constexpr size_t kSize = kCapacity * sizeof(ParticipantTable::Word);
  UniqueFd fd_;
  Mapping mapping_;
  ParticipantTable table_;
  std::vector<Participant> swept_;
};

TEST_F(ParticipantsTest, AttachAndDetach) {
  {
    auto attachment = Attach();
    ASSERT_TRUE(attachment.ok()) << attachment.status();
    const Participant self = *(*attachment)->Self();
    EXPECT_EQ(self, (Participant{0, 0}));
    EXPECT_EQ(table_.Load(0).state, State::kAlive);
  }
  EXPECT_EQ(table_.Load(0).state, State::kFree);
  EXPECT_EQ(table_.Load(0).epoch, 1u);
  EXPECT_EQ((*(*Attach())->Self()), (Participant{0, 1}));
}

TEST_F(ParticipantsTest, TwoOfOneProcessAreAliveToEachOther) {
  auto a = *Attach();
  auto b = *Attach();
  EXPECT_EQ(a->Self()->index, 0u);
  EXPECT_EQ(b->Self()->index, 1u);
  EXPECT_EQ(a->ReapAll(), 0);
  EXPECT_EQ(b->ReapAll(), 0);
  EXPECT_FALSE(a->ReapOne(0));  // itself
  EXPECT_TRUE(swept_.empty());
}

TEST_F(ParticipantsTest, FullTableIsResourceExhausted) {
  std::vector<std::unique_ptr<Attachment>> all;
  std::set<uint32_t> indices;
  for (uint32_t i = 0; i < kCapacity; ++i) {
    all.push_back(*Attach());
    indices.insert(all.back()->Self()->index);
  }
  EXPECT_EQ(indices.size(), kCapacity);
  const absl::Status status = Attach().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("64 participants"));
  all.erase(all.begin() + 7);
  EXPECT_EQ(*(*Attach())->Self(), (Participant{7, 1}));
}

TEST_F(ParticipantsTest, DeadIsReapedOnceAndItsIndexReused) {
  auto mine = *Attach();
  const pid_t pid =
      SpawnAndHold([&] { static_cast<void>(Attach().value().release()); });
  EXPECT_FALSE(mine->ReapOne(1));
  Kill(pid);
  EXPECT_TRUE(mine->ReapOne(1));
  EXPECT_THAT(swept_, ::testing::ElementsAre(Participant{1, 0}));
  EXPECT_FALSE(mine->ReapOne(1));
  EXPECT_EQ(*(*Attach())->Self(), (Participant{1, 1}));
}

TEST_F(ParticipantsTest, AttachToTableOfTheDeadReapsThem) {
  const pid_t pid = SpawnAndHold([&] {
    for (uint32_t i = 0; i < kCapacity; ++i)
      static_cast<void>(Attach().value().release());
  });
  EXPECT_FALSE(Attach().ok());
  Kill(pid);
  EXPECT_EQ(*(*Attach())->Self(), (Participant{0, 1}));
  EXPECT_EQ(swept_.size(), kCapacity);
}

TEST_F(ParticipantsTest, StoppedIsNotDead) {
  auto mine = *Attach();
  const pid_t pid =
      SpawnAndHold([&] { static_cast<void>(Attach().value().release()); });
  ASSERT_EQ(kill(pid, SIGSTOP), 0);
  ASSERT_EQ(waitpid(pid, nullptr, WUNTRACED), pid);
  EXPECT_EQ(mine->ReapAll(), 0);
  Kill(pid);
  EXPECT_EQ(mine->ReapAll(), 1);
}

// One killed between its lock and its ALIVE leaves nothing to clean.
TEST_F(ParticipantsTest, DeathBetweenLockAndAliveLeavesTheIndexFree) {
  const pid_t pid = SpawnAndHold([&] {
    const std::string path = "/proc/self/fd/" + std::to_string(fd_.get());
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_start = ParticipantTable::kLockOffset;
    lock.l_len = 1;
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) _exit(1);
  });
  EXPECT_EQ((*Attach())->Self()->index, 1u);
  Kill(pid);
  auto mine = *Attach();
  EXPECT_EQ(mine->Self()->index, 0u);
  EXPECT_EQ(mine->ReapAll(), 0);
}

// A reaper is killed after it has written DEAD, before its sweep is complete.
TEST_F(ParticipantsTest, NextReaperFinishesForADeadOne) {
  auto mine = *Attach();
  Kill(SpawnAndHold([&] { static_cast<void>(Attach().value().release()); }));
  const pid_t reaper = fork();
  if (reaper == 0) {
    const auto die = [](Participant) { kill(getpid(), SIGKILL); };
    (*Attachment::Create(fd_.get(), table_, die))->ReapOne(1);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(reaper, &status, 0), reaper);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(table_.IsMarkedDead({1, 0}));
  EXPECT_EQ(mine->ReapAll(), 2);  // both
  EXPECT_THAT(swept_,
              ::testing::ElementsAre(Participant{1, 0}, Participant{2, 0}));
}

TEST_F(ParticipantsTest, ForkedChildAttachesAnew) {
  auto mine = *Attach();
  int status = -1;
  const pid_t pid = fork();
  if (pid == 0) {
    auto self = mine->Self();
    const bool good = self.ok() && *self == Participant{1, 0} &&
                      !mine->ReapOne(0) && *mine->Self() == Participant{1, 0};
    mine.reset();  // detaches the child's, not the parent's
    _exit(good ? 0 : 1);
  }
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(table_.Load(0).state, State::kAlive);
  EXPECT_EQ(table_.Load(1).state, State::kFree);
  EXPECT_EQ(table_.Load(1).epoch, 1u);
}

// A child that merely inherited the attachment must not keep its parent alive.
TEST_F(ParticipantsTest, DeadParentOfALivingChildIsDead) {
  auto mine = *Attach();
  int pids[2];
  ASSERT_EQ(pipe2(pids, O_CLOEXEC), 0);
  const pid_t parent = SpawnAndHold([&] {
    static_cast<void>(Attach().value().release());
    if (fork() != 0) return;
    // Only a child that has returned from fork has dropped what it inherited.
    const pid_t self = getpid();
    if (write(pids[1], &self, sizeof(self)) != sizeof(self)) _exit(1);
    while (true) pause();
  });
  pid_t child;
  ASSERT_EQ(read(pids[0], &child, sizeof(child)), sizeof(child));
  EXPECT_FALSE(mine->ReapOne(1));
  Kill(parent);
  EXPECT_TRUE(mine->ReapOne(1));
  EXPECT_EQ(kill(child, 0), 0) << "the child still runs";
  kill(child, SIGKILL);
  close(pids[0]);
  close(pids[1]);
}

TEST_F(ParticipantsTest, AbandonedIsDeadToOthers) {
  auto mine = *Attach();
  auto other = *Attach();
  other->Abandon();
  EXPECT_TRUE(mine->ReapOne(1));
  EXPECT_EQ(*other->Self(), (Participant{1, 1}));
}

// A process that closes descriptors that it does not own loses its lock; what
// has got the number since is not ours to close.
TEST_F(ParticipantsTest, LostIsRenewed) {
  auto mine = *Attach();
  const int number = dup(0);
  close(number);  // the one that is given out next
  auto other = *Attach();
  close(number);
  ASSERT_EQ(open("/dev/null", O_RDWR | O_CLOEXEC), number);
  EXPECT_TRUE(mine->ReapOne(1));
  EXPECT_TRUE(other->RenewIfLost().ok());
  EXPECT_EQ(*other->Self(), (Participant{1, 1}));
  EXPECT_TRUE(other->RenewIfLost().ok());
  EXPECT_EQ(*other->Self(), (Participant{1, 1})) << "nothing was lost";
  EXPECT_FALSE(mine->ReapOne(1));
  other.reset();
  EXPECT_EQ(close(number), 0);
}

// To one whose own lock has gone, and whose descriptor is another file's now,
// nobody looks locked: still it takes nobody alive for dead. It finds those who
// are, and attaches anew.
TEST_F(ParticipantsTest, OneThatLostItsLockReapsNobodyAlive) {
  auto alive = *Attach();
  const int number = dup(0);
  close(number);  // the one that is given out next
  auto lost = *Attach();
  ASSERT_EQ(lost->Self()->index, 1u);
  const pid_t pid =
      SpawnAndHold([&] { static_cast<void>(Attach().value().release()); });
  close(number);
  ASSERT_EQ(open("/dev/null", O_RDWR | O_CLOEXEC), number);
  EXPECT_FALSE(lost->ReapOne(0));
  EXPECT_FALSE(lost->ReapOne(2));
  EXPECT_TRUE(swept_.empty());
  Kill(pid);
  EXPECT_TRUE(lost->ReapOne(2));
  EXPECT_THAT(swept_, ::testing::ElementsAre(Participant{2, 0}));
  // It itself is dead to all, and notices.
  EXPECT_EQ(lost->ReapAll(), 1);
  EXPECT_EQ(table_.Load(0).state, State::kAlive);
  EXPECT_NE(*lost->Self(), (Participant{1, 0}));
  EXPECT_FALSE(alive->ReapOne(lost->Self()->index));
  EXPECT_EQ(close(number), 0) << "not ours to close";
}

// The same if the number is not given out again.
TEST_F(ParticipantsTest, OneThatClosedItsLockNotices) {
  auto alive = *Attach();
  const int number = dup(0);
  close(number);
  auto lost = *Attach();
  close(number);
  EXPECT_EQ(lost->ReapAll(), 1);  // what it was before
  EXPECT_EQ(*lost->Self(), (Participant{2, 0}));
  EXPECT_FALSE(alive->ReapOne(2));
}

TEST_F(ParticipantsTest, OthersFilesAreNotClosed) {
  const int number = dup(0);
  close(number);
  for (const bool forks : {false, true}) {
    auto lost = *Attach();
    close(number);
    ASSERT_EQ(open("/dev/null", O_RDWR | O_CLOEXEC), number);
    if (forks) {
      const pid_t pid = fork();
      if (pid == 0) _exit(fcntl(number, F_GETFD) >= 0 ? 0 : 1);
      int status = -1;
      ASSERT_EQ(waitpid(pid, &status, 0), pid);
      EXPECT_EQ(status, 0);
    }
    lost.reset();
    EXPECT_EQ(close(number), 0);
  }
}

// Where the segment's own descriptor is another file's, too, nothing can be
// attached to, least of all that file.
TEST_F(ParticipantsTest, SegmentThatIsLostIsNotOpenedAnew) {
  UniqueFd fd = *fd_.Duplicate();
  auto lost = *Attachment::Create(fd.get(), table_, [](Participant) {});
  ASSERT_EQ(dup3(STDIN_FILENO, fd.get(), O_CLOEXEC), fd.get());
  lost->Abandon();
  const absl::Status status = lost->Self().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("not the segment any more"));
}

// Each call does something, however little time it has, and all get their turn.
TEST_F(ParticipantsTest, ReapAllEndsInTime) {
  auto mine = *Attach();
  std::set<uint32_t> indices;
  for (uint32_t i = 1; i < kCapacity; ++i) {
    words()[i].store(static_cast<uint32_t>(State::kDead));
  }
  for (uint32_t i = 1; i < kCapacity; ++i) {
    EXPECT_EQ(mine->ReapAll(Deadline::After(absl::ZeroDuration())), 1);
    // A peer that writes rubbish makes it look dead again.
    indices.insert(swept_.back().index);
    words()[swept_.back().index].store(static_cast<uint32_t>(State::kDead));
  }
  EXPECT_EQ(indices.size(), kCapacity - 1);
  EXPECT_EQ(mine->ReapAll(), static_cast<int>(kCapacity - 1));
}

// A file that somebody uses cannot be claimed, and one that is claimed cannot
// be used. Whoever dies gives up both.
TEST_F(ParticipantsTest, SharedOrClaimed) {
  // Descriptions of their own.
  const std::string path = absl::StrCat("/proc/self/fd/", fd_.get());
  const auto open_again = [&] {
    return UniqueFd(open(path.c_str(), O_RDWR | O_CLOEXEC));
  };
  const UniqueFd watcher = open_again();
  ASSERT_TRUE(watcher.ok());
  EXPECT_TRUE(IsSameFile(fd_.get(), watcher.get()));
  EXPECT_FALSE(IsSameFile(fd_.get(), STDIN_FILENO));
  EXPECT_FALSE(IsFileShared(watcher.get()));
  {
    const UniqueFd one = open_again();
    const UniqueFd two = open_again();
    ASSERT_TRUE(ShareFile(one.get()).ok());
    ASSERT_TRUE(ShareFile(two.get()).ok());
    EXPECT_TRUE(IsFileShared(watcher.get()));
    EXPECT_EQ(*ClaimFile(watcher.get()), false);
  }
  EXPECT_FALSE(IsFileShared(watcher.get()));
  {
    const UniqueFd remover = open_again();
    ASSERT_EQ(*ClaimFile(remover.get()), true);
    const UniqueFd late = open_again();
    const absl::Status status = ShareFile(late.get());
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("being removed"));
  }
  {
    const auto attachment = Attach();
    ASSERT_TRUE(attachment.ok());
    EXPECT_TRUE(IsFileShared(watcher.get()));
    EXPECT_TRUE(IsParticipantLocked(watcher.get(), 0));
    EXPECT_FALSE(IsParticipantLocked(watcher.get(), 1));
    EXPECT_EQ(*ClaimFile(watcher.get()), false);
  }
  EXPECT_FALSE(IsParticipantLocked(watcher.get(), 0));
  const pid_t pid = SpawnAndHold([&] {
    // The descriptor lives as long as the child.
    static const UniqueFd one = open_again();
    if (!ShareFile(one.get()).ok()) _exit(1);
  });
  EXPECT_TRUE(IsFileShared(watcher.get()));
  Kill(pid);
  EXPECT_FALSE(IsFileShared(watcher.get()));
}

TEST_F(ParticipantsTest, GarbageInTheTableIsNobody) {
  for (uint32_t i = 0; i < kCapacity; ++i) {
    words()[i].store(0x1234567890abcdef + i);
  }
  EXPECT_EQ(Attach().status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(table_.Load(kCapacity).state, State::kFree);
  EXPECT_TRUE(swept_.empty());
}

TEST_F(ParticipantsTest, ThreadsAttachAndReapTogether) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 200; ++i) {
        auto attachment =
            Attachment::Create(fd_.get(), table_, [](Participant) { FAIL(); });
        ASSERT_TRUE(attachment.ok()) << attachment.status();
        EXPECT_EQ((*attachment)->ReapAll(), 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint32_t i = 0; i < kCapacity; ++i) {
    EXPECT_EQ(table_.Load(i).state, State::kFree);
  }
}

}  // namespace
}  // namespace ipc
