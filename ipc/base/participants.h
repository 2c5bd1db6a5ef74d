// Who takes part in a shared segment, and who of them is alive.
//
// A ParticipantTable is an array of words inside the segment, one for each
// participant; an Attachment is one's own place in it. What a participant holds
// in the segment (a slot it is writing, a lock) it marks with its Participant,
// {index, epoch}; when it dies, any other one finds that out and cleans up.
//
//   auto attachment = Attachment::Create(fd, table, [&](Participant dead) {
//     for (auto& lock : locks) lock.ReleaseIfOwnedBy(dead);
//   });
//   absl::StatusOr<Participant> self = (*attachment)->Self();
//   ...
//   if (waited_too_long_for(owner)) (*attachment)->ReapOne(owner.index);
//
// How death is known: only from the kernel, never by a time-out. Each
// Attachment opens the segment anew (an open file description of its own) and
// holds an OFD write lock (F_OFD_SETLK in fcntl(2)) on one byte, which the
// kernel drops when the last thread of the process has stopped running. A
// process that is slow, stopped or traced keeps it. No common PID namespace is
// needed.
//
// A participant's word:
//
//    63           32 31            0
//   +---------------+---------------+
//   |     epoch     |     state     |     all zero: FREE, epoch 0
//   +---------------+---------------+
//
//   FREE(e)  -> ALIVE(e)   by whoever holds the lock of this index
//   ALIVE(e) -> FREE(e+1)  by its owner, which holds nothing and then unlocks
//   ALIVE(e) -> DEAD(e)    by a reaper that saw no lock
//   DEAD(e)  -> FREE(e+1)  by a reaper, after a complete sweep for {index, e}
//
// Invariants:
// 1. The lock is taken before ALIVE is written and dropped after FREE is: ALIVE
//    and no lock means dead. One that dies in between leaves FREE: nothing to
//    clean.
// 2. Words only move forward, each by a CAS, so a probe whose word has changed
//    meanwhile changes nothing.
// 3. An index is used again only after a complete sweep, and then under another
//    epoch. Each step may be repeated or continued by another reaper.
//
// The locks are on bytes beyond any data (kLockOffset + index). A lock needs no
// byte to be there, and so the ranges within the file stay free for other use,
// whatever the layout of the segment is and wherever it puts the table.
//
// Fork: a child inherits the open file description, and with it the lock, which
// would keep a dead parent alive. A pthread_atfork handler closes it in the
// child, before fork returns there; the Attachment then attaches anew at its
// first Self(). A raw clone(2) or vfork(2) that neither execs nor exits at once
// escapes this.
//
// Not to be done: closing descriptors one does not own. A process that closes
// "all descriptors" without exec is dead to the others, until it notices. What
// has got the numbers since does them no harm: before anybody is declared dead,
// the kernel is asked again through a descriptor that surely leads to the
// segment, and none is closed that does not.
//
// Thread safety: all members may be called from any thread.
#ifndef IPC_BASE_PARTICIPANTS_H_
#define IPC_BASE_PARTICIPANTS_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"

namespace ipc {

// Names one attachment for ever: the next one at the same index has another
// epoch. A word in shared memory may keep fewer bits of the epoch; see ReapOne.
struct Participant {
  uint32_t index;
  uint32_t epoch;

  friend bool operator==(const Participant&, const Participant&) = default;
};

// A view of the words; does not own them. Whatever they contain, no member
// touches memory beyond them.
class ParticipantTable {
 public:
  using Word = std::atomic<uint64_t>;
  static_assert(sizeof(Word) == 8 && Word::is_always_lock_free);

  enum class State : uint32_t { kFree = 0, kAlive = 1, kDead = 2 };
  // What a word says, which for an untrusted peer may be any state at all.
  struct Entry {
    State state;
    uint32_t epoch;
  };

  static constexpr off_t kLockOffset = off_t{1} << 62;
  // No table is larger. The byte before those of the participants is for who
  // uses the segment without being one, and shares a read lock on it.
  static constexpr uint32_t kMaxCapacity = 1 << 20;

  // `words` are `capacity` words of the segment, zero when it is created, at
  // the same offset for all. `capacity` is the caller's own copy, already
  // checked against the size of the mapping.
  ParticipantTable(Word* words, uint32_t capacity)
      : words_(words), capacity_(capacity) {}

  uint32_t capacity() const { return capacity_; }
  // FREE with epoch 0 for an index out of range.
  Entry Load(uint32_t index) const;
  // Whether a reaper has declared this very participant dead, and no sweep for
  // it is complete. A sweep asks this between reading a word that carries part
  // of the epoch and changing it: then the word is the dead one's indeed.
  bool IsMarkedDead(Participant participant) const;

 private:
  friend class Attachment;

  Word* words_;
  uint32_t capacity_;
};

// Whoever opens a file by its name holds one of these, or is a participant, so
// that others see that it is used. Both are descriptions of the caller's own.

// Shares the file until `fd` is closed. Unavailable while somebody has claimed
// it.
absl::Status ShareFile(int fd);
// Claims the file for as long as `fd` is open: nobody can share it, or become a
// participant, then. False if somebody does or is.
absl::StatusOr<bool> ClaimFile(int fd);
// Whether others share or claim it, or are participants.
bool IsFileShared(int fd);
// Whether the participant at `index` is another one than `fd`'s description,
// and alive.
bool IsParticipantLocked(int fd, uint32_t index);
// Whether both lead to the same file.
bool IsSameFile(int a, int b);

// The file that a descriptor led to once, to tell whether it still does: the
// number may have been closed by who does not own it, and given out again.
class FileIdentity {
 public:
  explicit FileIdentity(int fd);
  bool IsOf(int fd) const;

 private:
  bool known_;  // false: of no file
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

class Attachment {
 public:
  // Takes away everything in the segment that is marked with exactly this
  // participant. Several processes may do so for the same one at a time, and
  // one may be killed half-way: each step has to be idempotent, a CAS. Must not
  // call the Attachment.
  using Sweep = std::function<void(Participant dead)>;

  // Takes the first free index. If there is none, reaps the dead and looks
  // again: ResourceExhausted if all are alive. `fd` is any descriptor of the
  // segment; it and the memory of `table` must outlive the Attachment, which a
  // forked child uses to attach anew. Needs /proc.
  static absl::StatusOr<std::unique_ptr<Attachment>> Create(
      int fd, ParticipantTable table, Sweep sweep);

  // Leaves the table. The participant must hold nothing in the segment any
  // more; if it does, use Abandon first.
  ~Attachment();
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  // Who this process is in the table. Cheap: one load, but for the first call
  // in a forked child, which attaches and may fail as Create does.
  absl::StatusOr<Participant> Self();

  // The same without attaching: false if that is to be done first.
  bool GetSelf(Participant* self) const {
    // Acquire pairs with the release that ends attaching.
    *self = self_.load(std::memory_order_acquire);
    return *self != kNobody;
  }

  // How many forks this process is away from the one that first attached to
  // anything. What was noted under another depth was noted by a parent.
  static uint32_t fork_depth() {
    // Relaxed: written by a forked child before it has a second thread.
    return fork_depth_.load(std::memory_order_relaxed);
  }

  // Whether `participant` is who Self() last said, in this process. False in a
  // forked child for what its parent was.
  bool IsSelf(Participant participant) const {
    // Relaxed: whoever holds the answer of Self() has synchronised with it.
    return self_.load(std::memory_order_relaxed) == participant;
  }

  // One system call: marks the participant at `index` dead and sweeps, if the
  // kernel says so. Also finishes what a killed reaper began. Returns whether
  // there was a dead one. Takes no epoch, as the word itself knows it: a caller
  // holding a truncated or an outdated one does no harm.
  bool ReapOne(uint32_t index);
  // The same for all others; a system call for each that is attached. Returns
  // how many were dead. A sweep may take long, and a peer that writes rubbish
  // can make all look dead: after one it begins no more once the deadline has
  // passed, and the next call goes on from there. Also attaches anew if it
  // finds that this process has lost its own lock.
  int ReapAll(Deadline deadline = Deadline::Infinite());

  // To be called when something marked with Self() has been taken away: if this
  // participant has lost its place in the table, though alive, attaches anew.
  // That happens to a process that closed descriptors it does not own, and
  // where a peer writes rubbish.
  absl::Status RenewIfLost();

  // Drops the lock as if this participant had died, for the others to reap, and
  // attaches anew at the next Self(). Not while another thread uses the object.
  void Abandon();

 private:
  friend class AttachmentRegistry;

  static constexpr Participant kNobody = {~0u, ~0u};

  Attachment(int fd, ParticipantTable table, Sweep sweep)
      : fd_(fd), file_(fd), table_(table), sweep_(std::move(sweep)) {}

  absl::Status AttachLocked();  // REQUIRES: the registry's lock
  absl::StatusOr<UniqueFd> OpenAgain() const;
  bool TryIndex(int lock_fd, uint32_t index);
  bool IsUnlocked(int lock_fd, uint32_t index) const;
  bool ReapOne(int lock_fd, uint32_t index);
  void CloseOwn(int lock_fd) const;

  static std::atomic<uint32_t> fork_depth_;

  const int fd_;
  const FileIdentity file_;
  const ParticipantTable table_;
  const Sweep sweep_;

  // Or kNobody. Written under the registry's lock, or by a forked child before
  // it has a second thread.
  std::atomic<Participant> self_{kNobody};
  static_assert(std::atomic<Participant>::is_always_lock_free);
  // The open file description that holds the lock; -1 in a forked child.
  std::atomic<int> lock_fd_{-1};
  // Where ReapAll goes on. Relaxed: anywhere will do.
  std::atomic<uint32_t> next_to_reap_{0};

  // The list of all Attachments of this process, under the registry's lock.
  Attachment* previous_ = nullptr;
  Attachment* next_ = nullptr;
};

}  // namespace ipc

#endif  // IPC_BASE_PARTICIPANTS_H_
