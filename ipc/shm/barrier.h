// A Barrier in shared memory: a number of parties, each of which waits until
// all are there; then all go on, and it may be used again. Python's
// multiprocessing.Barrier.
//
// Example:
//
//   absl::StatusOr<Barrier> barrier = Barrier::CreateAnonymous(4);
//   ... in each of four processes or threads:
//   absl::StatusOr<uint32_t> place = barrier->Wait(absl::Seconds(10));
//   if (!place.ok()) return place.status();
//   if (*place == 0) ... what one of them has to do ...
//
// It is broken by Abort, by the time-out of one who waits, by the death of one
// who waits, and by an action that throws: then all who wait, and all who come,
// get Aborted, until Reset.
//
// What holds, whoever is killed and wherever:
// 1. Either all parties of a round are let through or none is, and none of them
//    was dead when the last one came, as far as the kernel had said so by then.
// 2. The death of one who waits is noticed within 15 ms by the others who wait;
//    Aborted then says so. That of a party which has not come yet cannot be
//    known; for that there is the time-out.
// 3. One who was killed while it changed the barrier has done so or has not.
//    One that is stopped there, or runs an action, is alive and keeps those who
//    wait already, be it beyond their time-outs. Who comes meanwhile waits for
//    its own time-out at most, and so do Abort and Reset; IsBroken and
//    ApproximateWaiting never wait.
//
// Thread safety: all members may be called from any thread and process.
// Lifetime: a view that keeps its segment mapped; copies are cheap.
#ifndef IPC_SHM_BARRIER_H_
#define IPC_SHM_BARRIER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/shm/monitor.h"
#include "ipc/shm/placed.h"
#include "ipc/shm/segment.h"

namespace ipc::shm {
namespace internal {

// All bytes zero is one at which nobody waits. Changed under the monitor only:
// each change of the state, and each of a place, is one store.
struct BarrierHeader {
  std::atomic<uint64_t> layout;  // see ipc/shm/layout.h
  Monitor monitor;
  std::atomic<uint32_t> state;
  std::atomic<uint32_t> someone_died;  // 1: that is why it is broken
  uint64_t reserved[2];
  // Followed by a word for each party: 0, or who waits at this place, its epoch
  // << 32 | index + 1.
};
static_assert(sizeof(BarrierHeader) == 64);

}  // namespace internal

class Barrier : public internal::Placed<Barrier> {
 public:
  static constexpr uint32_t kMaxParties = 65536;

  // What it takes in a user area.
  static constexpr size_t SizeBytes(uint32_t parties) {
    return sizeof(internal::BarrierHeader) +
           (size_t{parties} * 8 + 63) / 64 * 64;
  }

  // The one at `offset` of the user area; the same number of parties for all.
  // Errors as Mutex::Attach; InvalidArgument for none, or more than
  // kMaxParties.
  static absl::StatusOr<Barrier> Attach(Segment segment, size_t offset,
                                        uint32_t parties);

  // Waits for all. Each party gets another number from 0 to parties() - 1, and
  // the one with the highest, the last to come, first runs `action`, while all
  // others wait. If that throws, the barrier is broken, and the exception
  // leaves this Wait. It must not use the barrier: FailedPrecondition, and from
  // other threads, or by a second mapping of the segment, it waits for itself.
  //
  // DeadlineExceeded if they do not come in time, which breaks the barrier; or,
  // and then nothing has happened, if those of the round before do not leave in
  // time, or one that is stopped or runs its action keeps this one from
  // entering. Aborted if it is broken or becomes so; PermissionDenied if the
  // segment is mapped for reading.
  absl::StatusOr<uint32_t> Wait(
      absl::Duration timeout = absl::InfiniteDuration(),
      const std::function<void()>& action = nullptr);

  // Breaks it. DeadlineExceeded if one that is stopped or runs its action keeps
  // this one out for so long; so Reset.
  absl::Status Abort(absl::Duration timeout = absl::InfiniteDuration());
  // Makes it as new. Who waits gets Aborted.
  absl::Status Reset(absl::Duration timeout = absl::InfiniteDuration());

  uint32_t parties() const { return parties_; }
  // How many wait for the others. These two do not wait, and are OK always,
  // also if the segment is mapped for reading.
  absl::StatusOr<uint32_t> ApproximateWaiting() const;
  absl::StatusOr<bool> IsBroken() const;

 private:
  enum State : uint32_t {
    kFilling,         // until all are there
    kDraining,        // until all of them have left; then filling
    kBroken,          // until Reset
    kResetting,       // until those who waited have left; then filling
    kBrokenDraining,  // as draining, but broken then
  };

  Barrier(Segment segment, std::byte* object, uint32_t parties)
      : Placed(std::move(segment), object), parties_(parties) {}

  internal::BarrierHeader* header() const {
    return reinterpret_cast<internal::BarrierHeader*>(object());
  }
  std::atomic<uint64_t>& place(uint32_t i) const {
    return reinterpret_cast<std::atomic<uint64_t>*>(header() + 1)[i];
  }
  State state() const;
  void SetState(State state) const;
  // How many places are taken.
  uint32_t Taken() const;
  // On to the next state, if the last one has left.
  void Settle() const;
  // Who has died has left; if that was while filling, the barrier is broken.
  void ExpelDead() const;
  void Leave(uint32_t mine) const;
  // What the last to come does for all. If it throws, that one has left.
  void Run(const std::function<void()>& action, uint32_t mine) const;
  absl::Status CheckNotInAction() const;
  absl::Status Broken() const;

  uint32_t parties_;
};

}  // namespace ipc::shm

#endif  // IPC_SHM_BARRIER_H_
