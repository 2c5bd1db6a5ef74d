#include "ipc/base/asymmetric_fence.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace ipc {
namespace {

constexpr int kStores = 20000;

// One thread stores 1, 2, 3, ... in a word and each time loads the other
// thread's; that one does the same, rarely. Returns how often neither saw what
// the other one had stored: the rare side loaded n, before n + 1 was there, and
// yet the load that came after n + 1 was older than the rare side's store.
template <typename Light, typename Heavy>
int CountMissed(Light light, Heavy heavy) {
  struct alignas(64) Word {
    std::atomic<int64_t> value = 0;
  };
  Word frequent, rare;
  // Of each store of the rare side: what the frequent side had stored when it
  // saw that first, and what the rare side loaded after it.
  std::vector<int64_t> first(kStores + 1), loaded(kStores + 1);
  std::thread thread([&] {
    int64_t seen = 0;
    for (int64_t n = 1; seen < kStores; ++n) {
      frequent.value.store(n, std::memory_order_relaxed);
      light();
      const int64_t now = rare.value.load(std::memory_order_relaxed);
      while (seen < now) first[++seen] = n;
    }
  });
  for (int64_t m = 1; m <= kStores; ++m) {
    // At all points of the other one's loop.
    for (int64_t i = m % 200; i > 0; --i) asm volatile("");
    rare.value.store(m, std::memory_order_relaxed);
    heavy();
    loaded[m] = frequent.value.load(std::memory_order_relaxed);
  }
  thread.join();
  int missed = 0;
  for (int m = 1; m <= kStores; ++m) missed += first[m] > loaded[m] + 1 ? 1 : 0;
  return missed;
}

TEST(AsymmetricFenceTest, OneOfBothSeesTheOther) {
  EnableLightFence();
  EXPECT_EQ(CountMissed(&LightFence, &HeavyFence), 0);
  // What it would be like, had this machine more than one CPU to spare.
  printf("without HeavyFence: %d of %d\n",
         CountMissed(&LightFence, &LightFence), kStores);
}

TEST(AsymmetricFenceTest, AForkedChildInheritsIt) {
  EnableLightFence();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(CountMissed(&LightFence, &HeavyFence) == 0 ? 0 : 1);
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ipc
