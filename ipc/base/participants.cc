#include "ipc/base/participants.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mutex>
#include <string>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"

namespace ipc {
namespace {

using State = ParticipantTable::State;

constexpr uint64_t Pack(State state, uint32_t epoch) {
  return uint64_t{epoch} << 32 | static_cast<uint32_t>(state);
}

struct flock LockOf(uint32_t index) {
  struct flock lock = {};  // OFD locks want l_pid == 0
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = ParticipantTable::kLockOffset + index;
  lock.l_len = 1;
  return lock;
}

absl::StatusOr<bool> SetLock(int fd, int16_t type, off_t begin, off_t length) {
  struct flock lock = {};  // OFD locks want l_pid == 0
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = begin;
  lock.l_len = length;
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  return PosixError(errno, absl::StrCat("locking fd ", fd));
}

}  // namespace

absl::Status ShareFile(int fd) {
  const absl::StatusOr<bool> locked =
      SetLock(fd, F_RDLCK, ParticipantTable::kLockOffset - 1, 1);
  if (!locked.ok()) return locked.status();
  if (*locked) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("the file of fd ", fd, " is being removed"));
}

absl::StatusOr<bool> ClaimFile(int fd) {
  return SetLock(fd, F_WRLCK, ParticipantTable::kLockOffset - 1,
                 off_t{ParticipantTable::kMaxCapacity} + 1);
}

bool IsFileShared(int fd) {
  struct flock lock = LockOf(0);
  lock.l_start -= 1;
  lock.l_len = off_t{ParticipantTable::kMaxCapacity} + 1;
  // When in doubt, it is.
  return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool IsParticipantLocked(int fd, uint32_t index) {
  struct flock lock = LockOf(index);
  // When in doubt, alive.
  return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool IsSameFile(int a, int b) { return FileIdentity(a).IsOf(b); }

FileIdentity::FileIdentity(int fd) {
  struct stat stat;
  known_ = fstat(fd, &stat) == 0;
  if (!known_) return;
  device_ = stat.st_dev;
  inode_ = stat.st_ino;
}

bool FileIdentity::IsOf(int fd) const {
  const FileIdentity other(fd);
  return known_ && other.known_ && device_ == other.device_ &&
         inode_ == other.inode_;
}

// All Attachments of this process, for the fork handlers. The lock is held
// across fork, so a child finds the list whole, and no attach half done.
class AttachmentRegistry {
 public:
  static std::mutex& lock() { return lock_; }

  // REQUIRES: lock().
  static absl::Status Add(Attachment* attachment) {
    if (!handlers_installed_) {
      const int error = pthread_atfork(&Prepare, &InParent, &InChild);
      if (error != 0) return PosixError(error, "pthread_atfork");
      handlers_installed_ = true;
    }
    attachment->next_ = first_;
    if (first_ != nullptr) first_->previous_ = attachment;
    first_ = attachment;
    return absl::OkStatus();
  }

  // REQUIRES: lock().
  static void Remove(Attachment* attachment) {
    if (attachment->next_ != nullptr) {
      attachment->next_->previous_ = attachment->previous_;
    }
    if (attachment->previous_ != nullptr) {
      attachment->previous_->next_ = attachment->next_;
    } else if (first_ == attachment) {
      first_ = attachment->next_;
    }
  }

 private:
  static void Prepare() { lock_.lock(); }
  static void InParent() { lock_.unlock(); }
  static void InChild() {
    // Only the calling thread exists here; relaxed stores are enough. Closing
    // leaves the parent's lock as it is, where F_UNLCK would drop it.
    Attachment::fork_depth_.fetch_add(1, std::memory_order_relaxed);
    for (Attachment* a = first_; a != nullptr; a = a->next_) {
      a->self_.store(Attachment::kNobody, std::memory_order_relaxed);
      const int fd = a->lock_fd_.exchange(-1, std::memory_order_relaxed);
      a->CloseOwn(fd);
    }
    lock_.unlock();
  }

  static std::mutex lock_;
  static Attachment* first_;
  static bool handlers_installed_;
};

std::mutex AttachmentRegistry::lock_;
Attachment* AttachmentRegistry::first_ = nullptr;
bool AttachmentRegistry::handlers_installed_ = false;
std::atomic<uint32_t> Attachment::fork_depth_{0};

ParticipantTable::Entry ParticipantTable::Load(uint32_t index) const {
  if (index >= capacity_) return {State::kFree, 0};
  const uint64_t word = words_[index].load();
  return {static_cast<State>(static_cast<uint32_t>(word)),
          static_cast<uint32_t>(word >> 32)};
}

bool ParticipantTable::IsMarkedDead(Participant participant) const {
  const Entry entry = Load(participant.index);
  return entry.state == State::kDead && entry.epoch == participant.epoch;
}

absl::StatusOr<std::unique_ptr<Attachment>> Attachment::Create(
    int fd, ParticipantTable table, Sweep sweep) {
  std::unique_ptr<Attachment> attachment(
      new Attachment(fd, table, std::move(sweep)));
  absl::Status status;
  {
    const std::lock_guard<std::mutex> guard(AttachmentRegistry::lock());
    status = AttachmentRegistry::Add(attachment.get());
    if (status.ok()) status = attachment->AttachLocked();
  }
  if (!status.ok()) return status;  // the destructor takes the lock itself
  return attachment;
}

Attachment::~Attachment() {
  const std::lock_guard<std::mutex> guard(AttachmentRegistry::lock());
  AttachmentRegistry::Remove(this);
  const Participant self = self_.load(std::memory_order_relaxed);
  if (self != kNobody) {
    uint64_t alive = Pack(State::kAlive, self.epoch);
    // Fails if a hostile peer changed the word: then not ours to repair.
    table_.words_[self.index].compare_exchange_strong(
        alive, Pack(State::kFree, self.epoch + 1));
  }
  CloseOwn(lock_fd_.load(std::memory_order_relaxed));
}

// What is there under our number may be somebody else's by now.
void Attachment::CloseOwn(int lock_fd) const {
  if (lock_fd >= 0 && file_.IsOf(lock_fd)) close(lock_fd);
}

absl::StatusOr<Participant> Attachment::Self() {
  // Acquire pairs with the release in TryIndex: who sees us attached sees
  // lock_fd_ too.
  Participant self = self_.load(std::memory_order_acquire);
  if (self == kNobody) {
    const std::lock_guard<std::mutex> guard(AttachmentRegistry::lock());
    self = self_.load(std::memory_order_relaxed);
    if (self == kNobody) {
      if (absl::Status status = AttachLocked(); !status.ok()) return status;
      self = self_.load(std::memory_order_relaxed);
    }
  }
  return self;
}

absl::Status Attachment::RenewIfLost() {
  const std::lock_guard<std::mutex> guard(AttachmentRegistry::lock());
  const Participant self = self_.load(std::memory_order_relaxed);
  if (self == kNobody) return absl::OkStatus();  // the next Self() attaches
  const ParticipantTable::Entry entry = table_.Load(self.index);
  const int lock_fd = lock_fd_.load(std::memory_order_relaxed);
  if (file_.IsOf(lock_fd)) {
    if (entry.state == State::kAlive && entry.epoch == self.epoch) {
      return absl::OkStatus();
    }
    // Another thread may be probing through it: to be kept, without the lock.
    struct flock lock = LockOf(self.index);
    lock.l_type = F_UNLCK;
    fcntl(lock_fd, F_OFD_SETLK, &lock);
  } else {
    lock_fd_.store(-1, std::memory_order_relaxed);  // no more ours to close
    // The lock is lost, or held by a copy that nobody knows of: who we were is
    // dead in either case.
    uint64_t alive = Pack(State::kAlive, self.epoch);
    table_.words_[self.index].compare_exchange_strong(
        alive, Pack(State::kDead, self.epoch));
  }
  self_.store(kNobody, std::memory_order_relaxed);
  return AttachLocked();
}

// A description of our own: a dup would share its locks with whoever gave us
// the descriptor.
absl::StatusOr<UniqueFd> Attachment::OpenAgain() const {
  const std::string path = absl::StrCat("/proc/self/fd/", fd_);
  UniqueFd opened(
      RetryOnEintr([&] { return open(path.c_str(), O_RDWR | O_CLOEXEC); }));
  if (!opened.ok()) {
    return PosixError(errno, absl::StrCat("opening the segment anew as ", path,
                                          " (is /proc mounted?)"));
  }
  if (!file_.IsOf(opened.get())) {
    return absl::FailedPreconditionError(
        absl::StrCat("fd ", fd_,
                     " is not the segment any more: this process has closed a "
                     "descriptor that it does not own"));
  }
  return opened;
}

absl::Status Attachment::AttachLocked() {
  UniqueFd opened;
  int lock_fd = lock_fd_.load(std::memory_order_relaxed);
  if (lock_fd < 0) {
    absl::StatusOr<UniqueFd> again = OpenAgain();
    if (!again.ok()) return again.status();
    opened = *std::move(again);
    lock_fd = opened.get();
  }
  for (const bool reaped : {false, true}) {
    if (reaped) {
      int dead = 0;
      for (uint32_t i = 0; i < table_.capacity(); ++i) {
        dead += ReapOne(lock_fd, i) ? 1 : 0;
      }
      if (dead == 0) break;
    }
    for (uint32_t i = 0; i < table_.capacity(); ++i) {
      if (TryIndex(lock_fd, i)) {
        (void)opened.Release();  // now owned by lock_fd_
        return absl::OkStatus();
      }
    }
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "all ", table_.capacity(), " participants of the segment behind fd ", fd_,
      " are alive: create it for more"));
}

bool Attachment::TryIndex(int lock_fd, uint32_t index) {
  if (table_.Load(index).state != State::kFree) return false;
  struct flock lock = LockOf(index);
  if (fcntl(lock_fd, F_OFD_SETLK, &lock) != 0) return false;
  // Only now is the word ours to change; somebody may have come and gone, or
  // come and died, since we looked.
  const ParticipantTable::Entry entry = table_.Load(index);
  uint64_t free = Pack(State::kFree, entry.epoch);
  if (entry.state != State::kFree ||
      !table_.words_[index].compare_exchange_strong(
          free, Pack(State::kAlive, entry.epoch))) {
    lock.l_type = F_UNLCK;
    fcntl(lock_fd, F_OFD_SETLK, &lock);
    return false;
  }
  lock_fd_.store(lock_fd, std::memory_order_relaxed);
  // Release pairs with the acquire in Self.
  self_.store({index, entry.epoch}, std::memory_order_release);
  return true;
}

bool Attachment::IsUnlocked(int lock_fd, uint32_t index) const {
  if (IsParticipantLocked(lock_fd, index)) return false;
  // Rare from here on. The number may lead to another file by now, on which
  // nobody has a lock, or to the very description that has this one.
  const absl::StatusOr<UniqueFd> again = OpenAgain();
  if (again.ok()) return !IsParticipantLocked(again->get(), index);
  return file_.IsOf(lock_fd);  // no descriptor is left: the next best
}

bool Attachment::ReapOne(uint32_t index) {
  // Acquire as in Self: a caller may know only that it has attached once.
  const Participant self = self_.load(std::memory_order_acquire);
  // Our own lock would look free to us.
  if (self == kNobody || index == self.index) return false;
  return ReapOne(lock_fd_.load(std::memory_order_relaxed), index);
}

bool Attachment::ReapOne(int lock_fd, uint32_t index) {
  ParticipantTable::Entry entry = table_.Load(index);
  if (entry.state == State::kAlive) {
    if (!IsUnlocked(lock_fd, index)) return false;
    uint64_t alive = Pack(State::kAlive, entry.epoch);
    // Should it fail, the owner has detached or another reaper was faster.
    if (!table_.words_[index].compare_exchange_strong(
            alive, Pack(State::kDead, entry.epoch))) {
      entry = table_.Load(index);
    } else {
      entry.state = State::kDead;
    }
  }
  if (entry.state != State::kDead) return false;
  sweep_(Participant{index, entry.epoch});
  uint64_t dead = Pack(State::kDead, entry.epoch);
  table_.words_[index].compare_exchange_strong(
      dead, Pack(State::kFree, entry.epoch + 1));
  return true;
}

int Attachment::ReapAll(Deadline deadline) {
  const int lock_fd = lock_fd_.load(std::memory_order_relaxed);
  // Should it fail, the next Self() says why.
  if (lock_fd >= 0 && !file_.IsOf(lock_fd)) RenewIfLost().IgnoreError();
  int dead = 0;
  uint32_t i = next_to_reap_.load(std::memory_order_relaxed);
  for (uint32_t n = 0; n < table_.capacity(); ++n, ++i) {
    if (i >= table_.capacity()) i = 0;
    if (table_.Load(i).state == State::kFree || !ReapOne(i)) continue;
    ++dead;
    if (deadline.HasPassed()) {
      next_to_reap_.store(i + 1, std::memory_order_relaxed);
      break;
    }
  }
  return dead;
}

void Attachment::Abandon() {
  const std::lock_guard<std::mutex> guard(AttachmentRegistry::lock());
  self_.store(kNobody, std::memory_order_relaxed);
  CloseOwn(lock_fd_.exchange(-1, std::memory_order_relaxed));
}

}  // namespace ipc
