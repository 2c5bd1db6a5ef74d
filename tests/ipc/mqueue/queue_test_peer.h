// Lets tests stop half-way through an operation of a Queue, and look at and
// damage its segment.
#ifndef TESTS_IPC_MQUEUE_QUEUE_TEST_PEER_H_
#define TESTS_IPC_MQUEUE_QUEUE_TEST_PEER_H_

#include <time.h>

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/memory.h"
#include "ipc/base/participants.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/queue_core.h"
#include "ipc/mqueue/slot_ring.h"

namespace ipc::mqueue {

class QueueTestPeer {
 public:
  // A queue whose laps come round soon. Compares laps well only for as long as
  // no process is stopped for half of them.
  static absl::StatusOr<Queue> CreateWithLapBits(const Options& options,
                                                 int lap_bits) {
    return Queue::CreateWith(options, lap_bits, 0, std::nullopt);
  }

  // How soon a waiter looks for the dead, instead of kParkTick. For this object
  // and the children forked from here on.
  static void SetParkTick(Queue& queue, absl::Duration tick) {
    queue.core_->park_tick = tick;
  }

  // As if somebody had looked for the dead this very moment, rounded up: for a
  // tick at least, only those who wait will do so again.
  static void HaveJustReaped(Queue& queue) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    queue.core_->last_reap_ms.store(int64_t{now.tv_sec} * 1000 +
                                    now.tv_nsec / 1'000'000 + 1);
  }

  static QueueCore& core(Queue& queue) { return *queue.core_; }
  static SlotRing& ring(Queue& queue) { return queue.core_->lanes[0]; }
  static const Geometry& geometry(Queue& queue) {
    return queue.core_->geometry;
  }
  static Header& header(Queue& queue) { return queue.core_->header(); }
  static Arena& arena(Queue& queue) { return queue.core_->arena; }
  static Attachment& attachment(Queue& queue) {
    return *queue.core_->attachment;
  }
  static ParticipantTable participants(Queue& queue) {
    return queue.core_->participants;
  }
  static absl::Span<std::byte> bytes(Queue& queue) {
    const Mapping& mapping = queue.core_->mapping;
    return {mapping.data(), mapping.size()};
  }

  // The first half of Send and of Receive: the slot is WRITING, or READING.
  static SlotRing::Outcome BeginSend(Queue& queue, SlotRing::Claim* claim) {
    return ring(queue).BeginSend(*attachment(queue).Self(), claim);
  }
  static SlotRing::Outcome BeginReceive(Queue& queue, SlotRing::Claim* claim) {
    return ring(queue).BeginReceive(*attachment(queue).Self(), claim);
  }
};

}  // namespace ipc::mqueue

#endif  // TESTS_IPC_MQUEUE_QUEUE_TEST_PEER_H_
