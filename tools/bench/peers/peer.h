// What is measured: a peer is a way for messages from some senders to some
// receivers, each of them a process. Ours is one of them.
//
//   class SomePeer {
//    public:
//     static constexpr char kName[] = "what the table calls it";
//     // In the process from which all others are forked.
//     explicit SomePeer(const Load& load);
//     // Each in a process of its own; `i` counts from 0.
//     class Sender {
//      public:
//       Sender(SomePeer& peer, int i);
//       // Calls fill(std::byte*) for `bytes` bytes: in place if the peer can
//       // lend memory, else in memory from which it then copies.
//       template <typename Fill>
//       void Send(size_t bytes, Fill fill);
//     };
//     class Receiver {
//      public:
//       Receiver(SomePeer& peer, int i);
//       // Waits for a message, and calls use(const std::byte*, size_t) on it.
//       template <typename Use>
//       void Receive(Use use);
//     };
//   };
//
// They are types, not virtual functions: an ideal ring takes 5 ns a message.
// What fails ends the process, and with it the benchmark (see die.h).
#ifndef TOOLS_BENCH_PEERS_PEER_H_
#define TOOLS_BENCH_PEERS_PEER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bench {

struct Load {
  int senders = 1;
  int receivers = 1;
  size_t bytes = 64;    // of each message
  size_t depth = 1024;  // how many may be under way
  // Processes that are attached to a queue and do nothing.
  int bystanders = 0;
};

// Where in its page a Buffer begins. For all peers at the same place: it
// decides about the speed of a copy, see ipc/base/copy.h. This one is good
// everywhere.
inline size_t buffer_place = 64;

// For peers that copy: where the message is made, or looked at. There is room
// for a header before it.
class Buffer {
 public:
  explicit Buffer(size_t bytes)
      : bytes_(bytes), memory_(kPage + buffer_place + bytes) {
    const size_t place = reinterpret_cast<uintptr_t>(memory_.data()) % kPage;
    data_ = memory_.data() + (kPage - place) + buffer_place;
  }
  Buffer(Buffer&&) = default;
  std::byte* data() { return data_; }
  size_t size() const { return bytes_; }

 private:
  static constexpr size_t kPage = 4096;

  size_t bytes_;
  std::vector<std::byte> memory_;
  std::byte* data_;
};

}  // namespace bench

#endif  // TOOLS_BENCH_PEERS_PEER_H_
