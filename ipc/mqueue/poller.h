// A descriptor for poll and epoll that is readable when a queue may have a
// message, made of what every process that has the segment can reach: whoever
// commits a message while `armed` is not 0 writes a byte into the segment's
// file, and inotify(7) tells all who watch the file (IN_MODIFY). No descriptor
// has to be handed to the senders, nor do they have to know each other.
//
//   // The side that polls:              // The side that commits:
//   poller->Arm();                       commit();
//   if (!may_receive()) poll(fd);        if (IsArmed(armed)) Poke(...);
//
// When it is readable: receive until there is nothing left, Arm, look again.
//
// Either the poller sees the commit, or the committer sees `armed`: it takes
// one total order of these four, so all are seq_cst. Bit 0 of `armed` says so,
// and the rest counts how often it was set. It is cleared after the write, and
// only if it is still as it was seen before: so a poller loses no arming,
// however long ago that was, and one killed before its write has cleared
// nothing. One killed before Poke is found by the tick: a timer in the same
// descriptor.
//
// Memory traffic: none while nobody has armed it; IsArmed is a load then.
#ifndef IPC_MQUEUE_POLLER_H_
#define IPC_MQUEUE_POLLER_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"

namespace ipc::mqueue {

class Poller {
 public:
  // For the segment behind `fd`, readable at every `tick` at the latest.
  static absl::StatusOr<std::unique_ptr<Poller>> Create(
      int fd, std::atomic<uint64_t>* armed, absl::Duration tick);

  int fd() const { return epoll_.get(); }
  // Makes it unreadable until the next Poke or tick. Look again afterwards.
  void Arm();

 private:
  Poller(std::atomic<uint64_t>* armed, UniqueFd epoll, UniqueFd inotify,
         UniqueFd timer);

  std::atomic<uint64_t>* const armed_;
  const UniqueFd epoll_;
  const UniqueFd inotify_;
  const UniqueFd timer_;
};

inline bool IsArmed(const std::atomic<uint64_t>& armed) {
  return (armed.load() & 1) != 0;
}

// Makes all pollers of the segment behind `fd` readable, by writing at `offset`
// a byte that means nothing; but not if `fd` is another file by now. Failure is
// left to the pollers' ticks.
void Poke(int fd, const FileIdentity& segment, std::atomic<uint64_t>* armed,
          uint64_t offset);

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_POLLER_H_
