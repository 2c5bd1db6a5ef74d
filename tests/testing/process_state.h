// What a process is doing, as proc(5) tells.
#ifndef TESTS_TESTING_PROCESS_STATE_H_
#define TESTS_TESTING_PROCESS_STATE_H_

#include <sys/types.h>

#include <cstdint>

namespace ipc::testing {

// 'R' if it runs or could, 'S' if it sleeps in a system call, 'T' if it was
// stopped, 'Z' if it is dead; '?' if there is none.
char ProcessState(pid_t pid);

// How often the process, or the thread of that number, has gone to sleep by
// itself (proc_pid_status(5)); -1 if there is none.
int64_t VoluntarySwitches(pid_t id);

}  // namespace ipc::testing

#endif  // TESTS_TESTING_PROCESS_STATE_H_
