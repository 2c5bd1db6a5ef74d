#include "ipc/pipe/ring_end.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/participants.h"
#include "ipc/base/posix_error.h"

namespace ipc::pipe::internal {
namespace {

constexpr uint64_t Pack(EndState state, uint64_t count) {
  return count << 32 | static_cast<uint32_t>(state);
}

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

const char* NameOf(RingEnd::Side side) {
  return side == RingEnd::Side::kSender ? "sender" : "receiver";
}

}  // namespace

// All ends of this process, for the fork handlers: as AttachmentRegistry in
// ipc/base/participants.cc.
class RingEndRegistry {
 public:
  static absl::Status Add(RingEnd* end) {
    const std::lock_guard<std::mutex> guard(lock_);
    if (!handlers_installed_) {
      const int error = pthread_atfork(&Prepare, &InParent, &InChild);
      if (error != 0) return PosixError(error, "pthread_atfork");
      handlers_installed_ = true;
    }
    end->next_ = first_;
    if (first_ != nullptr) first_->previous_ = end;
    first_ = end;
    return absl::OkStatus();
  }

  // Opens a description of the end's own; not while a fork would copy it before
  // it is listed.
  static bool OpenDescription(RingEnd* end) {
    const std::lock_guard<std::mutex> guard(lock_);
    const std::string path = absl::StrCat("/proc/self/fd/", end->fd());
    end->lock_fd_ =
        RetryOnEintr([&] { return open(path.c_str(), O_RDWR | O_CLOEXEC); });
    return end->lock_fd_ >= 0;
  }

  // Closes its description, too: never is one closed that is still listed, and
  // whose number may by then be another file's.
  static void Remove(RingEnd* end) {
    const std::lock_guard<std::mutex> guard(lock_);
    if (end->next_ != nullptr) end->next_->previous_ = end->previous_;
    if (end->previous_ != nullptr) {
      end->previous_->next_ = end->next_;
    } else if (first_ == end) {
      first_ = end->next_;
    }
    end->previous_ = end->next_ = nullptr;
    if (end->lock_fd_ >= 0) close(std::exchange(end->lock_fd_, -1));
  }

 private:
  static void Prepare() { lock_.lock(); }
  static void InParent() { lock_.unlock(); }
  static void InChild() {
    for (RingEnd* end = first_; end != nullptr; end = end->next_) {
      // Closing leaves the parent's lock as it is, where F_UNLCK would drop it.
      if (end->lock_fd_ >= 0) close(std::exchange(end->lock_fd_, -1));
      end->mode_ = RingEnd::Mode::kForked;
    }
    lock_.unlock();
  }

  static std::mutex lock_;
  static RingEnd* first_;
  static bool handlers_installed_;
};

std::mutex RingEndRegistry::lock_;
RingEnd* RingEndRegistry::first_ = nullptr;
bool RingEndRegistry::handlers_installed_ = false;

RingEnd::~RingEnd() { RingEndRegistry::Remove(this); }

absl::Status RingEnd::Open(UniqueFd fd) {
  EnableLightFence();
  absl::StatusOr<RingMemory> memory = RingMemory::Map(fd.get());
  if (!memory.ok()) return memory.status();
  memory_ = *std::move(memory);
  fd_ = std::move(fd);

  if (absl::Status status = RingEndRegistry::Add(this); !status.ok()) {
    return status;
  }
  // A description of our own: a dup would share its locks with whoever gave us
  // the descriptor.
  if (!RingEndRegistry::OpenDescription(this)) {
    return PosixError(errno,
                      absl::StrCat("opening the ring anew as /proc/self/fd/",
                                   fd_.get(), " (is /proc mounted?)"));
  }
  struct flock lock = {};  // OFD locks want l_pid == 0
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = ParticipantTable::kLockOffset + static_cast<off_t>(side_);
  lock.l_len = 1;
  if (fcntl(lock_fd_, F_OFD_SETLK, &lock) != 0) {
    if (errno != EAGAIN && errno != EACCES) {
      return PosixError(errno, absl::StrCat("locking ring, fd ", fd_.get()));
    }
    const uint32_t pid = mine().pid.load(std::memory_order_relaxed);
    return absl::FailedPreconditionError(absl::StrCat(
        "attaching to ring, fd ", fd_.get(), ": it has a ", NameOf(side_),
        pid == 0 ? "" : absl::StrCat(", process ", pid),
        ", which lives; a ring has one"));
  }
  if (StateOf(mine().state.load(std::memory_order_acquire)) ==
      EndState::kClosed) {
    return absl::FailedPreconditionError(
        absl::StrCat("attaching to ring, fd ", fd_.get(), ": its ",
                     NameOf(side_), " has closed it; create a new one"));
  }
  return absl::OkStatus();
}

void RingEnd::Announce() {
  NoteCpu();
  // Relaxed: for messages only.
  mine().pid.store(static_cast<uint32_t>(getpid()), std::memory_order_relaxed);
  const uint64_t before = mine().state.load(std::memory_order_relaxed);
  // Release pairs with the acquire in LookAtPeer.
  mine().state.store(Pack(EndState::kAttached, (before >> 32) + 1),
                     std::memory_order_release);
  mode_ = Mode::kOpen;
  // The one before may have been killed before it woke the other end.
  if (peer_bell().waiting.load() != 0) Wake(peer_bell());
}

void RingEnd::GiveUp(EndState state) {
  if (!IsHeld()) return;
  const uint64_t before = mine().state.load(std::memory_order_relaxed);
  // Release pairs with the acquire in IsPeerClosed and LookAtPeer: who knows
  // that it is closed knows all that was committed or acknowledged.
  mine().state.store(Pack(state, before >> 32), std::memory_order_release);
  if (state == EndState::kClosed && side_ == Side::kReceiver) {
    // The sender asks for our bell at each commit: it is to look at our state.
    // Release pairs with the acquire in Wake.
    my_bell().waiting.store(1, std::memory_order_release);
  }
  Wake(peer_bell());
  mode_ = Mode::kClosed;
  RingEndRegistry::Remove(this);
}

RingEnd::Peer RingEnd::LookAtPeer() {
  // Acquire pairs with the release in GiveUp.
  const uint64_t state = peer().state.load(std::memory_order_acquire);
  if (StateOf(state) == EndState::kClosed) return Peer::kClosed;
  if (StateOf(state) != EndState::kAttached) return Peer::kFine;
  const int64_t now = NowMs();
  if (now - last_probe_ms_ < absl::ToInt64Milliseconds(kTick)) {
    return Peer::kFine;
  }
  last_probe_ms_ = now;
  if (IsParticipantLocked(lock_fd_, 1 - static_cast<uint32_t>(side_))) {
    return Peer::kFine;
  }
  // It may have left since we looked, or another one have come.
  if (peer().state.load(std::memory_order_acquire) != state) {
    return Peer::kFine;
  }
  // To the sender that is no news: another receiver may come.
  if (side_ == Side::kSender) return Peer::kFine;
  last_probe_ms_ = 0;  // who asks again is told again
  return Peer::kDead;
}

std::string RingEnd::Name() const {
  return absl::StrCat(
      side_ == Side::kSender ? "sending to ring, fd " : "receiving from ring, ",
      side_ == Side::kSender ? "" : "fd ", fd_.get());
}

absl::Status RingEnd::ModeError() const {
  switch (mode_) {
    case Mode::kOpen:
      return absl::OkStatus();
    case Mode::kReserved:
      return absl::FailedPreconditionError(
          absl::StrCat(Name(), ": commit or drop the reservation that is out"));
    case Mode::kPeerClosed:
      return PeerGone(Peer::kClosed);
    case Mode::kForked:
      return absl::FailedPreconditionError(
          absl::StrCat(Name(),
                       ": this end is the parent's; attach to the ring "
                       "in the process that uses it"));
    case Mode::kClosed:
      break;
  }
  return absl::FailedPreconditionError(
      absl::StrCat(Name(), ": this end has been closed"));
}

absl::Status RingEnd::Damaged() const {
  return absl::DataLossError(absl::StrCat(
      Name(), ": a peer has damaged the segment; create a new ring"));
}

absl::Status RingEnd::PeerGone(Peer peer) const {
  if (side_ == Side::kSender) {
    return absl::UnavailableError(
        absl::StrCat(Name(), ": the receiver has closed it"));
  }
  if (peer == Peer::kClosed) {
    return absl::OutOfRangeError(
        absl::StrCat(Name(), ": closed for send, and all received"));
  }
  return absl::UnavailableError(absl::StrCat(
      Name(), ": the sender, process ",
      header().sender.pid.load(std::memory_order_relaxed),
      ", has died, and all that it sent is received; another may attach"));
}

absl::Status RingEnd::TimedOut(absl::Duration timeout) const {
  if (side_ == Side::kReceiver) {
    return absl::DeadlineExceededError(absl::StrCat(
        Name(), ": still empty after ", absl::FormatDuration(timeout)));
  }
  std::string why;
  const EndState receiver =
      StateOf(peer().state.load(std::memory_order_relaxed));
  if (receiver == EndState::kNone) {
    why = ": nobody receives from it";
  } else if (!IsParticipantLocked(lock_fd_,
                                  static_cast<uint32_t>(Side::kReceiver))) {
    why = ": its receiver has died, and no other has come";
  }
  if (timeout <= absl::ZeroDuration()) {
    return absl::ResourceExhaustedError(absl::StrCat(Name(), ": full", why));
  }
  return absl::DeadlineExceededError(absl::StrCat(
      Name(), ": still full after ", absl::FormatDuration(timeout), why));
}

}  // namespace ipc::pipe::internal
