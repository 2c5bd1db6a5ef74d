#include "ipc/shm/event.h"

#include "absl/strings/str_cat.h"
#include "ipc/base/asymmetric_fence.h"
#include "ipc/base/deadline.h"
#include "ipc/shm/layout.h"

namespace ipc::shm {

absl::StatusOr<Event> Event::Attach(Segment segment, size_t offset) {
  const absl::StatusOr<std::byte*> object = Find(
      segment, offset, SizeBytes(), "Event", internal::LayoutHash("Event", 0));
  if (!object.ok()) return object.status();
  EnableLightFence();
  return Event(std::move(segment), *object);
}

absl::Status Event::Set() { return Flip(true); }

absl::Status Event::Clear() { return Flip(false); }

absl::Status Event::Flip(bool to_set) {
  if (!segment().writable()) return segment().Self().status();
  internal::VersionSignal& flips = header()->flips;
  const auto is_to_flip = [&](uint64_t seen) {
    return (seen % 2 != 0) != to_set;
  };
  // Relaxed: Exchange compares again.
  uint64_t seen = flips.word.load(std::memory_order_relaxed);
  if (is_to_flip(seen) && flips.Exchange(&seen, seen + 1)) {
    return absl::OkStatus();
  }
  // It seems to be so already, or another one was faster. A mere load would not
  // do: it may overtake our stores, and one who clears the Event and then looks
  // for them would neither see them nor ever be woken for them. By this all
  // flips that come later see them.
  seen = flips.word.fetch_add(0);
  // Should it fail, somebody else has done the same since; or that and the
  // opposite, just as if it had come after us.
  if (is_to_flip(seen)) flips.Exchange(&seen, seen + 1);
  return absl::OkStatus();
}

absl::Status Event::Wait(absl::Duration timeout) const {
  const Deadline deadline = Deadline::After(timeout);
  internal::VersionSignal& flips = header()->flips;
  const uint64_t seen = flips.word.load();
  if (seen % 2 != 0) return absl::OkStatus();
  // From cleared on, the first flip sets it.
  while (!flips.Park(seen, deadline, segment().writable())) {
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(
          absl::StrCat("waiting for an Event in shm segment, fd ", fd(),
                       ": nobody has set it"));
    }
  }
  return absl::OkStatus();
}

}  // namespace ipc::shm
