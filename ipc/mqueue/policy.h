// What a queue does when it is full, and when a receiver has a message. Part of
// queue.h, and of the layout.
#ifndef IPC_MQUEUE_POLICY_H_
#define IPC_MQUEUE_POLICY_H_

#include <cstdint>

namespace ipc::mqueue {

// What Send and Lend do when the queue is full: all slots of the priority are
// taken, or the arena has no room for the message.
enum class FullPolicy : uint32_t {
  kBlock = 0,  // waits for a receiver, up to its time-out
  kFail = 1,   // ResourceExhausted at once, as TrySend
  // OK at once, and the message is gone: Stats::dropped counts it.
  kDropNewest = 2,
  // Drops the oldest message of the priority, or of one below, and sends. For
  // room in the arena it drops as many as that takes, and none if it would be
  // in vain: what receivers or lenders have in hand, and what is of a higher
  // priority, stays. If the slot to be used is just being received, waits for
  // that, 2 ms at most and only once for each receive. Where none of this
  // helps, as kDropNewest. Stats::dropped counts either.
  kOverwriteOldest = 3,
};

// When a message is done with.
enum class Delivery : uint32_t {
  // As soon as it is received: delivered at most once.
  kAutoAck = 0,
  // When its receiver says so (Message::Ack, TaskDone): delivered at least
  // once.
  kExplicitAck = 1,
};

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_POLICY_H_
