// What a Queue consists of. Not for users: here so that tests can stop half-way
// through an operation.
#ifndef IPC_MQUEUE_QUEUE_CORE_H_
#define IPC_MQUEUE_QUEUE_CORE_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ipc/base/memory.h"
#include "ipc/base/participants.h"
#include "ipc/base/spin_wait.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/doorbell.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"

namespace ipc::mqueue {

struct Queue::Core {
  using Claim = SlotRing::Claim;
  using Outcome = SlotRing::Outcome;
  enum class Side { kSend, kReceive };

  Core(UniqueFd segment_fd, Mapping segment, const Geometry& geometry);

  // Claims a slot; waits for one up to `timeout`.
  absl::Status Acquire(Side side, absl::Duration timeout, Claim* claim);
  // Claims a slot; Unavailable if that would block.
  absl::Status TryAcquire(Side side, Claim* claim);
  // For a claim whose commit failed.
  absl::Status Fenced(Side side);

  // The message under a claim, or DataLoss, and then it is gone.
  absl::StatusOr<absl::Span<const std::byte>> Contents(const Claim& claim);

  absl::Status CheckSize(size_t size) const;
  absl::Status Send(absl::Span<const std::byte> message,
                    absl::Duration timeout);
  absl::Status TrySend(absl::Span<const std::byte> message);
  absl::Status FillAndCommit(absl::Span<const std::byte> message,
                             const Claim& claim);
  absl::StatusOr<std::string> TakeString(const Claim& claim);

  // Invariant: the members below use those above.
  const UniqueFd fd;
  const Mapping mapping;
  SlotRing ring;
  // By Side: what its waits have taught, and where its peer ran when last seen,
  // or -1. Relaxed: a guess that orders nothing.
  SpinHistory spin_history[2];
  std::atomic<int> peer_cpu[2] = {-1, -1};
  // CLOCK_MONOTONIC, in milliseconds, of the last look for the dead by a call
  // that does not wait. Relaxed: looking once too often or too late is no harm.
  std::atomic<int64_t> last_reap_ms;
  // Shorter in tests, before the first call.
  absl::Duration park_tick = kParkTick;
  std::unique_ptr<Attachment> attachment;

 private:
  Outcome Begin(Side side, Participant self, Claim* claim) {
    return side == Side::kSend ? ring.BeginSend(self, claim)
                               : ring.BeginReceive(self, claim);
  }
  absl::Status ToStatus(Side side, Outcome outcome) const;
  absl::Status Wait(Side side, Participant self, absl::Duration timeout,
                    Claim* claim);
  void NotePeer(Side side, const Claim& claim);
  bool ClearBlocker(const Claim& seen);
  bool IsReapDue();
};

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_QUEUE_CORE_H_
