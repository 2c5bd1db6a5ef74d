// Lets tests see that an end of a ring sleeps, and have it sleep until it is
// woken.
#ifndef TESTS_IPC_PIPE_RING_TEST_PEER_H_
#define TESTS_IPC_PIPE_RING_TEST_PEER_H_

#include <sys/types.h>

#include <thread>

#include "absl/time/time.h"
#include "ipc/pipe/ring.h"
#include "ipc/pipe/ring_end.h"
#include "ipc/pipe/ring_layout.h"
#include "tests/testing/process_state.h"

namespace ipc::pipe {

class RingTestPeer {
 public:
  // End is RingSender or RingReceiver.
  template <typename End>
  static void SleepUntilWoken(End& end) {
    base(end).tick_ = absl::InfiniteDuration();
  }

  // Returns when `end` sleeps, in thread `tid`.
  template <typename End>
  static void AwaitSleep(End& end, pid_t tid) {
    const internal::RingBell& bell = base(end).my_bell();
    while (bell.waiting.load() == 0 || testing::ProcessState(tid) != 'S') {
      std::this_thread::yield();
    }
  }

 private:
  template <typename End>
  static internal::RingEnd& base(End& end) {
    return *end.core_;
  }
};

}  // namespace ipc::pipe

#endif  // TESTS_IPC_PIPE_RING_TEST_PEER_H_
