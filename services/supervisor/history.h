// History numbers every change and keeps the last ones, so that a client that
// comes back can go on where it was.
//
// Thread safety: none.
#ifndef SERVICES_SUPERVISOR_HISTORY_H_
#define SERVICES_SUPERVISOR_HISTORY_H_

#include <cstddef>
#include <cstdint>
#include <deque>

#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {

class History {
 public:
  explicit History(size_t capacity) : capacity_(capacity) {}

  // Gives `event` the next revision and the time.
  void Append(v1::Event event);

  // Of the latest event; 0 before the first.
  uint64_t revision() const { return revision_; }
  // Whether every event after `revision` is still here.
  bool Reaches(uint64_t revision) const {
    return revision <= revision_ && revision_ - revision <= events_.size();
  }
  // The event of a revision. Requires Reaches(revision - 1) and
  // revision <= this->revision().
  const v1::Event& At(uint64_t revision) const {
    return events_[events_.size() - 1 - (revision_ - revision)];
  }

 private:
  const size_t capacity_;
  uint64_t revision_ = 0;
  std::deque<v1::Event> events_;  // the last is that of revision_
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_HISTORY_H_
