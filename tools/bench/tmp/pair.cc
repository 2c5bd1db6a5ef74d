#include <cstdio>
#include <cstdlib>

#include "absl/time/clock.h"
#include "ipc/mqueue/queue.h"
using ipc::mqueue::Queue;
int main(int argc, char** argv) {
  Queue q = *Queue::CreateAnonymous({.slots = 1024, .message_bytes = 64});
  std::byte b[64] = {};
  const int k = argc > 1 ? atoi(argv[1]) : 1;
  for (int r = 0; r < 5; ++r) {
    absl::Time s = absl::Now();
    const int n = 3000000;
    for (int i = 0; i < n; i += k) {
      for (int j = 0; j < k; ++j)
        if (!q.Send(absl::MakeSpan(b)).ok()) abort();
      for (int j = 0; j < k; ++j)
        if (!q.ReceiveInto(absl::MakeSpan(b)).ok()) abort();
    }
    printf("%.1f ns\n", absl::ToDoubleNanoseconds(absl::Now() - s) / n);
  }
}
