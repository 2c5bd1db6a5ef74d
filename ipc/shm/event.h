// An Event in shared memory is a flag that one process sets and others wait
// for, as Python's multiprocessing.Event.
//
// Example:
//
//   absl::StatusOr<Event> started = Event::CreateAnonymous();
//   ... in one process:  started->Set();
//   ... in another one:  absl::Status status = started->Wait(absl::Seconds(5));
//
// What holds, whoever is killed and wherever:
// 1. There is nobody to wait for but who sets it; nobody ever holds an Event.
// 2. Whoever waits when it is set is let through, even if it is cleared at
//    once.
// 3. If a process is killed having set it, but before it could wake the others,
//    they notice within 20 ms.
// 4. What was written before Set is seen after Wait, after IsSet that says so,
//    and after a Clear that comes later, be it that the Event was set already.
//    So who finds no work may clear it, look once more and then wait:
//
//      while (!queue.Take(&work)) {
//        event->Clear();
//        if (queue.Take(&work)) break;
//        event->Wait();
//      }
//
// No system call but to wake somebody who waits.
//
// Thread safety: all members may be called from any thread and process.
// Lifetime: an Event is a view that keeps its segment mapped; copies are cheap.
#ifndef IPC_SHM_EVENT_H_
#define IPC_SHM_EVENT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/shm/placed.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/version_signal.h"

namespace ipc::shm {
namespace internal {

// All bytes zero is one that is not set.
struct EventHeader {
  std::atomic<uint64_t> layout;  // see ipc/shm/layout.h
  VersionSignal flips;           // how often it was set or cleared: odd if set
  uint64_t reserved[5];
};
static_assert(sizeof(EventHeader) == 64);

}  // namespace internal

class Event : public internal::Placed<Event> {
 public:
  // What it takes in a user area.
  static constexpr size_t SizeBytes() { return sizeof(internal::EventHeader); }

  // As Mutex::Attach. Mapped for reading, it can be waited for.
  static absl::StatusOr<Event> Attach(Segment segment, size_t offset);

  bool IsSet() const { return header()->flips.word.load() % 2 != 0; }
  // Both do nothing if it is so already. PermissionDenied if the segment is
  // mapped for reading.
  absl::Status Set();
  absl::Status Clear();
  // Until it is set. DeadlineExceeded if it is not within this time; mapped for
  // reading, it may be noticed 20 ms late.
  absl::Status Wait(absl::Duration timeout = absl::InfiniteDuration()) const;

 private:
  Event(Segment segment, std::byte* object)
      : Placed(std::move(segment), object) {}

  internal::EventHeader* header() const {
    return reinterpret_cast<internal::EventHeader*>(object());
  }
  absl::Status Flip(bool to_set);
};

}  // namespace ipc::shm

#endif  // IPC_SHM_EVENT_H_
