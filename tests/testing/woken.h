// Whether who sleeps is woken, and does not just find out at the end of its
// time that what it waits for was done long ago, as the last look before a
// time-out does: a lost wake-up would pass unseen.
//
//   Child receiver = Child::Fork([&] {
//     return Woken(kPatience, [&] { return queue.Receive(kPatience).ok(); });
//   });
#ifndef TESTS_TESTING_WOKEN_H_
#define TESTS_TESTING_WOKEN_H_

#include <chrono>

#include "absl/time/time.h"

namespace ipc::testing {

// An exit status: 0 if the operation succeeds in half of the time that it may
// take, 1 if it fails, 2 if it is late. REQUIRES: it does not wake up by itself
// before, as a waiter does after each park tick.
template <typename Operation>
int Woken(absl::Duration patience, Operation operation) {
  const auto start = std::chrono::steady_clock::now();
  if (!operation()) return 1;
  const auto taken = std::chrono::steady_clock::now() - start;
  return absl::FromChrono(taken) < patience / 2 ? 0 : 2;
}

}  // namespace ipc::testing

#endif  // TESTS_TESTING_WOKEN_H_
