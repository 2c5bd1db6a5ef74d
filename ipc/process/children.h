// The children of this process, known or not: with PR_SET_CHILD_SUBREAPER
// (prctl(2)) also the orphans below it, which the kernel hands to it when their
// parent dies.
#ifndef IPC_PROCESS_CHILDREN_H_
#define IPC_PROCESS_CHILDREN_H_

#include <sys/types.h>

#include <vector>

#include "absl/status/status.h"

namespace ipc::process {

// Orphaned descendants become children of this process from now on, instead of
// init's.
absl::Status BecomeSubreaper();

// The children of every thread of this process, zombies included, as
// /proc/self/task/*/children tells (proc(5)). A moment later it may differ.
std::vector<pid_t> ListChildren();

// Kills (SIGKILL) and reaps every child, again and again until there is none:
// the children of the killed come to a subreaper in turn. Only for a process
// that is about to end, since no child survives this.
void KillAllChildren();

}  // namespace ipc::process

#endif  // IPC_PROCESS_CHILDREN_H_
