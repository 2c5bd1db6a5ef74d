// Link is one connection to the supervisor: whole protocol messages in and out,
// framed as in ipc/pipe/frame.h, over a stream socket, without blocking.
//
// Thread safety: none; lives on the event loop.
#ifndef SERVICES_SUPERVISOR_LINK_H_
#define SERVICES_SUPERVISOR_LINK_H_

#include <cstddef>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/frame.h"
#include "services/supervisor/event_loop.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {

class Link {
 public:
  struct Callbacks {
    std::function<void(const v1::ClientMessage&)> on_message;
    // What was queued is less than kMaxQueued again.
    std::function<void()> on_writable;
    // The client has closed, or said what cannot be understood. The link may be
    // destroyed from within. Called once, last.
    std::function<void(const absl::Status&)> on_close;
  };

  // Past this many bytes, the client is slow: nothing more of its requests is
  // read, and pushes wait for on_writable.
  static constexpr size_t kMaxQueued = size_t{256} << 10;

  Link(EventLoop& loop, ipc::UniqueFd fd, Callbacks callbacks);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // Queues a message. Nothing is lost unless the client has gone.
  void Send(const v1::ServerMessage& message);
  bool is_slow() const { return queued() >= kMaxQueued; }
  // Sends what is queued, for as long as the client takes it at once. Once it
  // takes nothing any more, though it may still hold its end open, the requests
  // that it has sent are carried out, and the link closes.
  void Flush();

 private:
  size_t queued() const { return output_.size() - sent_; }
  void OnEvents(uint32_t events);
  void Read();
  void UpdateInterest();
  void Close(const absl::Status& reason);

  EventLoop& loop_;
  ipc::UniqueFd fd_;
  Callbacks callbacks_;
  EventLoop::WatchId watch_;
  uint32_t interest_;
  ipc::pipe::FrameDecoder decoder_;
  std::string output_;
  size_t sent_ = 0;    // of output_
  bool deaf_ = false;  // the client takes no answers any more
  bool closed_ = false;
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_LINK_H_
