// A Segment is memory that several processes share: a header and then a user
// area of zeroed bytes, in which Values, Arrays and plain bytes are placed.
//
// Example:
//
//   absl::StatusOr<Segment> segment = Segment::CreateAnonymous(4096);
//   auto score = Value<int64_t>::Attach(*segment, 0);
//   constexpr size_t kNames = Value<int64_t>::SizeBytes();
//   auto names = Array<Name>::Attach(*segment, kNames, 20);
//   ... grant segment->fd() to another process, which calls
//   absl::StatusOr<Segment> same = Segment::FromFd(std::move(fd));
//
// Or by a name, for processes of one user that share no descriptor:
//
//   absl::StatusOr<Segment> segment = Segment::Create("acme-scores", 4096);
//   ... elsewhere:
//   absl::StatusOr<Segment> same = Segment::Open("acme-scores");
//
// Zero is a valid state: whatever is placed in the user area is complete when
// its bytes are zero. So nothing is ever under construction, and a process may
// be killed at any instruction of creating or attaching without leaving
// something half-made to the others.
//
// Lifetime: a Segment is a reference to one attachment of this process; copies
// share it, and so do the Values and Arrays placed in it. The last one unmaps
// the memory, closes the descriptor and leaves the table of participants. The
// memory itself lives for as long as any process maps it or has it open.
//
// A name comes after the segment it names is complete, and stays until Unlink,
// or until RemoveStale finds that nobody uses it and the last ones to do so
// were killed. It is a file of /dev/shm; see ipc/base/named_memory.h.
//
// Distrust: everything that FromFd reads is checked once and copied to private
// memory. The size of an anonymous segment is sealed, so that no peer can cause
// a SIGBUS; unless it has huge pages: a peer that may write can punch a hole
// (fallocate(2)), and no seal keeps it from that while there are others who may
// write. If the machine then has no huge page free, whoever touches it next
// dies; so Options::huge_pages is for peers one trusts. Nor can the size of a
// named one be sealed: another process of this user that truncates the file
// kills whoever uses it then, as it could by a signal.
//
// Locks by F_SETLK, of lockf(3), on a named segment's file are dropped when
// this process opens and closes it, as by Open and Unlink: see fcntl(2). List
// and RemoveStale leave such locks alone.
//
// Fork: a child may use the Segments it inherits; it is a participant of its
// own from its first lock on. See ipc/base/participants.h for clone and vfork.
//
// Thread safety: all members may be called from any thread. The bytes are the
// caller's to synchronise; Value and Array do so.
#ifndef IPC_SHM_SEGMENT_H_
#define IPC_SHM_SEGMENT_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ipc/base/memory.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"

namespace ipc::shm {

// kRead maps the memory so that this process cannot change it. It then takes no
// part in locks: Value::Load and Array::Snapshot work, WaitForChange and
// Event::Wait do, if perhaps 20 ms late; Store and Lock do not. A name is then
// opened for reading as well, so its mode may be 0400, and who is handed fd()
// cannot write either.
using Access = Mapping::Access;

class Segment {
 public:
  // What is placed in the user area starts at a multiple of this.
  static constexpr size_t kAlignment = 64;
  // How many processes may be attached for kReadWrite at a time.
  static constexpr uint32_t kMaxParticipants = 256;

  struct Options {
    // To be had only if the machine keeps some free; otherwise it is made of
    // ordinary ones, see huge_pages(). The fewer pages, the fewer faults and
    // misses of the TLB; but the size is rounded up to some MiB, and a peer
    // that may write can cause a SIGBUS, see above. Not for named ones, which
    // are files of /dev/shm: that has huge pages only if it was mounted so, by
    // huge= of tmpfs(5), and then for all.
    bool huge_pages = false;
  };

  // A new memfd with `bytes` zeroed bytes for the user. ResourceExhausted if
  // there is no memory; it is allocated here, never at a later store.
  static absl::StatusOr<Segment> CreateAnonymous(size_t bytes) {
    return CreateAnonymous(bytes, Options());
  }
  static absl::StatusOr<Segment> CreateAnonymous(size_t bytes,
                                                 const Options& options);

  // The same under a name. AlreadyExists if there is one; InvalidArgument if
  // `name` is none; ResourceExhausted if /dev/shm is full.
  static absl::StatusOr<Segment> Create(absl::string_view name, size_t bytes);
  // Calls `complete` with the segment before it has its name. If that fails,
  // there is no segment; the same status.
  static absl::StatusOr<Segment> Create(
      absl::string_view name, size_t bytes,
      absl::FunctionRef<absl::Status(const Segment&)> complete);
  // NotFound if there is none; PermissionDenied if it belongs to another user,
  // is open to others, or is a symbolic link; DataLoss if it was truncated;
  // Unavailable if a process that was about to remove it is stopped; otherwise
  // as FromFd.
  static absl::StatusOr<Segment> Open(absl::string_view name,
                                      Access access = Access::kReadWrite);
  // Removes the name; who uses the segment keeps it. NotFound if there is none;
  // Unavailable if a process that was about to remove it is stopped.
  static absl::Status Unlink(absl::string_view name);

  // What is in /dev/shm under a name and belongs to this user.
  struct Listing {
    std::string name;
    size_t bytes;  // of the user area
    int alive;     // participants that live
    int dead;      // and those that were killed, as far as nobody has noticed
    bool in_use;   // by participants, or others that map it for reading
  };
  static absl::StatusOr<std::vector<Listing>> List();
  // Unlinks those that nobody uses and that the last ones to use were killed;
  // returns their names. One stays that is used, by whoever: also one that maps
  // it for reading, or a forked child that has not locked anything yet. And so
  // does one that anybody has left in order since the last death.
  static absl::StatusOr<std::vector<std::string>> RemoveStale();

  // Maps the Segment behind `fd`, which it owns from now on; close-on-exec is
  // left as it is. InvalidArgument if that is something else, such as a pipe or
  // a Queue; FailedPrecondition if its size is not sealed (of a named one: if
  // others than this user could truncate it) or another version of Parley made
  // it; DataLoss if its header makes no sense; PermissionDenied if
  // `access` is more than the descriptor allows; ResourceExhausted if
  // kMaxParticipants are attached and alive.
  static absl::StatusOr<Segment> FromFd(UniqueFd fd,
                                        Access access = Access::kReadWrite);

  // The user area. Only for reading unless writable().
  absl::Span<std::byte> bytes() const { return state_->bytes; }
  // Owned by the Segment; grant it to a child or send it over a socket. It is
  // close-on-exec.
  int fd() const { return state_->fd.get(); }
  bool writable() const { return state_->attachment != nullptr; }
  bool huge_pages() const { return state_->huge_pages; }
  // Whether the segment has a name, be it another one than it was opened by.
  // Always false of an anonymous one.
  bool has_name() const;

  // From now on nobody can map it for writing anew: FromFd only works for
  // reading. Those who do already, this process among them, still write; so do
  // their forked children. The kernel enforces it (F_SEAL_FUTURE_WRITE in
  // fcntl(2)). FailedPrecondition for a named one.
  absl::Status SealForReaders() const;

  // The following are for locks that live in the user area.

  // Who this process is among the participants; one load. PermissionDenied
  // unless writable(). In a forked child the first call attaches, and may fail
  // as FromFd does.
  absl::StatusOr<Participant> Self() const;
  // The same where it costs nothing: false if Self() has to attach first, or
  // fails.
  bool GetSelf(Participant* self) const {
    return writable() && state_->attachment->GetSelf(self);
  }
  // Whether `participant` is this process, and not, in a forked child, its
  // parent.
  bool IsSelf(Participant participant) const {
    return writable() && state_->attachment->IsSelf(participant);
  }
  // Whether the kernel says that `participant` has died or left. It may be
  // garbage: one that never was counts as dead. At most two system calls.
  // REQUIRES: writable().
  bool IsDead(Participant participant) const;
  // To be called when a lock of Self() was taken away: if others hold this
  // process for dead, because a peer wrote rubbish or descriptors were closed
  // that are not the closer's, it becomes a new participant.
  // REQUIRES: writable().
  absl::Status RenewSelfIfLost() const;

 private:
  // In order of construction: the attachment leaves the table before the memory
  // is unmapped.
  struct State {
    UniqueFd fd;
    Mapping mapping;
    absl::Span<std::byte> bytes;
    ParticipantTable participants{nullptr, 0};
    std::unique_ptr<Attachment> attachment;  // null if mapped for kRead
    bool huge_pages = false;
    bool reaps_all = false;  // when it leaves

    State() = default;
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();
  };

  explicit Segment(std::shared_ptr<const State> state)
      : state_(std::move(state)) {}

  std::shared_ptr<const State> state_;
};

}  // namespace ipc::shm

#endif  // IPC_SHM_SEGMENT_H_
