// SharedMemory is plain named memory, the counterpart of Python's
// multiprocessing.shared_memory.SharedMemory: a file in /dev/shm that is all
// payload, with no header of ours, which C++ and Python open by one name.
//
// Example:
//
//   auto frame = SharedMemory::Create("frame", 1 << 20);
//   std::memcpy(frame->bytes().data(), pixels.data(), pixels.size());
//   ...
//   absl::Status status = frame->Unlink();
//
// and in Python, while the name is there:
//
//   frame = shared_memory.SharedMemory("frame")
//   frame.buf[0]
//
// What holds: the memory begins as zeros, and all of it is allocated by Create
// and by Open, also what Python has left sparse. So a full /dev/shm is a
// Status there and never SIGBUS at some later access. A name is given to
// complete memory only, and Open accepts nothing but a file of this user to
// which others have no access, and follows no symbolic link.
//
// What does not: unlike a Segment, the file is not sealed. A process of this
// user that shrinks it kills with SIGBUS whoever uses the lost part. Python
// itself never shrinks one.
//
// Lifetime: a SharedMemory is a reference to one mapping of this process, and
// copies share it; the last one unmaps. That does not remove the name, and
// neither does the end of the process: somebody has to call Unlink, once. The
// memory itself lives until it has no name and nobody maps it.
//
// The trap of Python before 3.13: it takes for its own what it merely attached
// to. When such a process ends, its resource tracker warns of "leaked
// shared_memory objects" and unlinks the name under everyone else's feet. Who
// has it open keeps it, as unlinked() tells; who comes later gets NotFound. The
// Python side prevents it, once it is attached, by
//
//   from multiprocessing import resource_tracker
//   resource_tracker.unregister("/" + frame.name, "shared_memory")
//
// and from 3.13 on by SharedMemory(name, track=False). A Python process that
// unlinks what it attached to needs neither.
//
// Thread safety: all members may be called from any thread. The bytes are the
// caller's to synchronise, between processes as well.
#ifndef IPC_SHM_SHARED_MEMORY_H_
#define IPC_SHM_SHARED_MEMORY_H_

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ipc/base/memory.h"

namespace ipc::shm {

class SharedMemory {
 public:
  // kRead maps the memory so that this process cannot change it: a store is
  // SIGSEGV.
  using Access = Mapping::Access;

  // Writes what the memory shall hold before it has a name.
  using Fill = std::function<void(absl::Span<std::byte>)>;

  // New memory of `size` zeroed bytes, after `fill` if there is one, under
  // `name` (see ipc/base/named_memory.h for names; it is Python's, without a
  // slash), or if that is empty under a random one that nobody has.
  // AlreadyExists if the name is taken, by whatever; InvalidArgument if it is
  // no name or `size` is 0; ResourceExhausted if /dev/shm has no room.
  static absl::StatusOr<SharedMemory> Create(absl::string_view name,
                                             size_t size,
                                             const Fill& fill = nullptr);

  // Maps all of what is there under `name`. NotFound if there is nothing;
  // PermissionDenied if it is another user's, others may access it, or it is a
  // symbolic link; InvalidArgument if it is no file, `name` is no name, or the
  // memory has no bytes, which may mean that Python is still creating it;
  // ResourceExhausted if /dev/shm has no room for what it lacks.
  static absl::StatusOr<SharedMemory> Open(absl::string_view name,
                                           Access access = Access::kReadWrite);

  // Removes a name, whoever made it: for what a killed process has left.
  // NotFound if there is none.
  static absl::Status Unlink(absl::string_view name);

  // Removes the name of this memory. NotFound if unlinked(), so of several that
  // call it one succeeds, and the name that somebody has given to other memory
  // meanwhile stays. (Not so if they do that during the call.)
  absl::Status Unlink() const;
  // Whether name() no longer leads to this memory: it is gone, or it is other
  // memory's. One system call.
  bool unlinked() const;

  // Only for reading unless writable().
  absl::Span<std::byte> bytes() const {
    return absl::MakeSpan(state_->mapping.data(), state_->mapping.size());
  }
  size_t size() const { return state_->mapping.size(); }
  // Without a slash, as Python's.
  const std::string& name() const { return state_->name; }
  bool writable() const { return state_->access == Access::kReadWrite; }

 private:
  struct State {
    std::string name;
    Access access;
    Mapping mapping;
    // Which file it is. No other gets this number while it is mapped.
    dev_t device;
    ino_t inode;
  };

  explicit SharedMemory(std::shared_ptr<const State> state)
      : state_(std::move(state)) {}

  static absl::StatusOr<std::shared_ptr<State>> Map(int fd,
                                                    absl::string_view name,
                                                    Access access);

  std::shared_ptr<const State> state_;
};

}  // namespace ipc::shm

#endif  // IPC_SHM_SHARED_MEMORY_H_
