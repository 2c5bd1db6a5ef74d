#include "services/supervisor/history.h"

#include <utility>

#include "absl/time/clock.h"
#include "services/supervisor/proto_time.h"

namespace parley::supervisor {

void History::Append(v1::Event event) {
  event.set_revision(++revision_);
  *event.mutable_time() = ToProto(absl::Now());
  events_.push_back(std::move(event));
  if (events_.size() > capacity_) events_.pop_front();
}

}  // namespace parley::supervisor
