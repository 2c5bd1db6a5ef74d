// Sees to it that nothing this process started outlives it.
//
// A supervisor takes its services with it when it dies, but not what these have
// started themselves: that is reparented to the nearest subreaper, which is us.
#ifndef SERVICES_CONTROL_REAPER_H_
#define SERVICES_CONTROL_REAPER_H_

#include <sys/types.h>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace parley::control {

// Orphaned descendants become our children from now on. See
// PR_SET_CHILD_SUBREAPER in prctl(2).
absl::Status BecomeSubreaper();

// Waits for child `pid` to end, without reaping it. False if it lives on.
bool WaitForEnd(pid_t pid, absl::Duration timeout);

// Kills and reaps every descendant, those included that appear meanwhile.
// Returns how many had to be killed. Requires BecomeSubreaper, and that no
// child is still wanted.
int KillDescendants();

}  // namespace parley::control

#endif  // SERVICES_CONTROL_REAPER_H_
