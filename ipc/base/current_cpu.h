// The number of the CPU that the caller runs on, by one load: from the area
// that the kernel keeps up to date for restartable sequences, which glibc
// registers (since 2.35; see sys/rseq.h and "rseq" in the glibc manual). Else,
// or where that is turned off, by sched_getcpu(3). Outdated at once, of course.
#ifndef IPC_BASE_CURRENT_CPU_H_
#define IPC_BASE_CURRENT_CPU_H_

#include <sched.h>

#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

namespace ipc {

inline int CurrentCpu() {
#if __has_include(<sys/rseq.h>)
  if (__rseq_size != 0) {
    const auto* area = reinterpret_cast<const volatile struct rseq*>(
        static_cast<const char*>(__builtin_thread_pointer()) + __rseq_offset);
    // Negative, as RSEQ_CPU_ID_UNINITIALIZED is, only before registration.
    const int cpu = static_cast<int>(area->cpu_id);
    if (cpu >= 0) return cpu;
  }
#endif
  return sched_getcpu();
}

}  // namespace ipc

#endif  // IPC_BASE_CURRENT_CPU_H_
