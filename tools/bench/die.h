// For what a benchmark cannot go on without.
#ifndef TOOLS_BENCH_DIE_H_
#define TOOLS_BENCH_DIE_H_

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

namespace bench {

// Says what has failed and ends this process, be it the parent or a child.
[[noreturn]] inline void Die(const char* what) {
  fprintf(stderr, "bench: %s\n", what);
  _exit(1);
}

// The same with the meaning of errno, if a system call has failed.
inline void CheckCall(bool ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
  _exit(1);
}

}  // namespace bench

#endif  // TOOLS_BENCH_DIE_H_
