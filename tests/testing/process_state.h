// What a process is doing, as proc_pid_stat(5) tells.
#ifndef TESTS_TESTING_PROCESS_STATE_H_
#define TESTS_TESTING_PROCESS_STATE_H_

#include <sys/types.h>

namespace ipc::testing {

// 'R' if it runs or could, 'S' if it sleeps in a system call, 'T' if it was
// stopped, 'Z' if it is dead; '?' if there is none.
char ProcessState(pid_t pid);

}  // namespace ipc::testing

#endif  // TESTS_TESTING_PROCESS_STATE_H_
