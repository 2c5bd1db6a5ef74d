#include "ipc/mqueue/message.h"

#include <cstring>
#include <utility>

#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/queue_core.h"

namespace ipc::mqueue {

static_assert(sizeof(MessageMemory::small) == kMaxInlineBytes);

void MessageMemory::MoveFrom(MessageMemory& other) {
  core = std::exchange(other.core, nullptr);
  data = std::exchange(other.data, nullptr);
  size = std::exchange(other.size, 0);
  in_block = other.in_block;
  if (in_block) {
    std::memcpy(block, other.block, sizeof(block));
    std::memcpy(owner, other.owner, sizeof(owner));
    fork_depth = other.fork_depth;
  } else if (data != nullptr) {
    data = small.data();
    std::memcpy(data, other.small.data(), size);
  }
}

Loan& Loan::operator=(Loan&& other) noexcept {
  if (this != &other) {
    Reset();
    memory_.MoveFrom(other.memory_);
  }
  return *this;
}

Loan::~Loan() { Reset(); }

void Loan::Reset() {
  if (memory_.core != nullptr) memory_.core->Unlend(&memory_);
}

Message& Message::operator=(Message&& other) noexcept {
  if (this != &other) {
    Reset();
    memory_.MoveFrom(other.memory_);
    type_ = other.type_;
    redelivered_ = other.redelivered_;
  }
  return *this;
}

Message::~Message() { Reset(); }

void Message::Reset() {
  if (memory_.core != nullptr) memory_.core->Drop(&memory_);
}

absl::Status Message::Ack() {
  if (memory_.core != nullptr) return memory_.core->Ack(&memory_);
  return absl::FailedPreconditionError(
      "Ack of a Message that was acknowledged, given back or moved from");
}

absl::Status Message::GiveBack() {
  if (memory_.core != nullptr) return memory_.core->GiveBack(&memory_);
  return absl::FailedPreconditionError(
      "GiveBack of a Message that was acknowledged, given back or moved from");
}

}  // namespace ipc::mqueue
