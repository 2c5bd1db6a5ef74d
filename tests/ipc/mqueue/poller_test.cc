#include "ipc/mqueue/poller.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/base/memory.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"

namespace ipc::mqueue {
namespace {

// One that was about to clear an arming, and slept, must not clear a later one,
// for which nobody has written.
TEST(PollerTest, NoTwoArmingsAreAlike) {
  UniqueFd fd = *CreateMemory("poller_test", 4096);
  std::atomic<uint64_t> armed{0};
  const std::unique_ptr<Poller> poller =
      *Poller::Create(fd.get(), &armed, absl::Hours(1));
  poller->Arm();
  const uint64_t first = armed.load();
  EXPECT_TRUE(IsArmed(armed));
  Poke(fd.get(), FileIdentity(fd.get()), &armed, 0);
  EXPECT_FALSE(IsArmed(armed));
  poller->Arm();
  EXPECT_TRUE(IsArmed(armed));
  EXPECT_NE(armed.load(), first);
}

// The segment's descriptor was closed by who does not own it, and its number is
// another file's now.
TEST(PollerTest, OthersFilesAreNotWrittenTo) {
  UniqueFd fd = *CreateMemory("poller_test", 4096);
  const FileIdentity segment(fd.get());
  UniqueFd other(memfd_create("other", MFD_CLOEXEC));
  ASSERT_EQ(write(other.get(), "text", 4), 4);
  ASSERT_EQ(dup3(other.get(), fd.get(), O_CLOEXEC), fd.get());
  std::atomic<uint64_t> armed{1};
  Poke(fd.get(), segment, &armed, 0);
  char text[4];
  ASSERT_EQ(pread(other.get(), text, 4, 0), 4);
  EXPECT_EQ(std::string(text, 4), "text");
  EXPECT_TRUE(IsArmed(armed)) << "nobody was told";
}

}  // namespace
}  // namespace ipc::mqueue
