// Orphans are what services leave behind: descendants whose parent has ended,
// which the kernel has handed to the supervisor, their subreaper.
//
// Which process an orphan stems from shows in its environment: the name of the
// notify socket, which each process has its own of and children inherit.
#ifndef SERVICES_SUPERVISOR_ORPHANS_H_
#define SERVICES_SUPERVISOR_ORPHANS_H_

#include <sys/types.h>

#include <functional>
#include <string>

#include "absl/strings/string_view.h"

namespace parley::supervisor {

// Reaps the orphans that have ended, and kills those that stem from a process
// that has. Leaves alone what `is_managed` (by process id), those whose notify
// socket `is_live`, and those that have none: they end with the supervisor.
void CleanUpOrphans(
    const std::function<bool(pid_t)>& is_managed,
    const std::function<bool(absl::string_view notify_name)>& is_live);

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_ORPHANS_H_
