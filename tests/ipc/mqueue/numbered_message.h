// Messages that tell who sent them, the how-manieth they are, and whether they
// are whole: their length and every byte follow from those two numbers.
#ifndef TESTS_IPC_MQUEUE_NUMBERED_MESSAGE_H_
#define TESTS_IPC_MQUEUE_NUMBERED_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

namespace ipc::mqueue {

struct NumberedMessage {
  static constexpr size_t kMaxBytes = 200;

  uint64_t sender;
  uint64_t number;

  std::string Encode(size_t max_bytes = kMaxBytes) const {
    uint64_t state = sender * 0x9e3779b97f4a7c15 ^ number;
    const size_t length = 16 + Next(&state) % (max_bytes - 16 + 1);
    std::string text(length, '\0');
    std::memcpy(text.data(), this, 16);
    for (size_t i = 16; i < length; ++i) {
      text[i] = static_cast<char>(Next(&state) >> 56);
    }
    return text;
  }

  // nullopt if it is not exactly what Encode has made, with the same maximum.
  template <typename Bytes>
  static std::optional<NumberedMessage> Decode(const Bytes& bytes,
                                               size_t max_bytes = kMaxBytes) {
    NumberedMessage message;
    if (bytes.size() < sizeof(message)) return std::nullopt;
    std::memcpy(&message, bytes.data(), sizeof(message));
    const std::string expected = message.Encode(max_bytes);
    if (expected.size() != bytes.size() ||
        std::memcmp(expected.data(), bytes.data(), bytes.size()) != 0) {
      return std::nullopt;
    }
    return message;
  }

 private:
  // Marsaglia's xorshift, with a multiplier.
  static uint64_t Next(uint64_t* state) {
    *state |= *state == 0;
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1d;
  }
};

}  // namespace ipc::mqueue

#endif  // TESTS_IPC_MQUEUE_NUMBERED_MESSAGE_H_
