// A /dev/shm for a test alone: what it finds there is its own, what it removes
// is nobody else's, and it may be as small as the test likes.
#ifndef TESTS_TESTING_OWN_DEV_SHM_H_
#define TESTS_TESTING_OWN_DEV_SHM_H_

#include <string>

namespace ipc::testing {

// Mounts one, for this thread and the processes and threads that it starts from
// now on, in a mount namespace of their own; `options` are those of a tmpfs, as
// in mount(8). Whoever is not root does it as the only user of a user
// namespace. Fails the test, and returns false, where the system does not allow
// it: a skipped test would be noticed by nobody.
bool EnterOwnDevShm(const std::string& options = "");

// Gives the file at `path` to another user, or puts another user's file in its
// place, where this process may not give files away. Needs EnterOwnDevShm.
// Returns the user; fails the test if it cannot.
unsigned GiveAway(const std::string& path);

}  // namespace ipc::testing

#endif  // TESTS_TESTING_OWN_DEV_SHM_H_
