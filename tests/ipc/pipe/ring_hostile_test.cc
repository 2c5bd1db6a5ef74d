// A peer that writes rubbish into the segment. Whatever it writes, calls of the
// other end return in time, with a Status; under AddressSanitizer, none leaves
// the segment.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/ring.h"
#include "ipc/pipe/ring_layout.h"
#include "ipc/pipe/ring_memory.h"
#include "tests/testing/child.h"

namespace ipc::pipe {
namespace {

using testing::Child;

using internal::kPadding;
using internal::PackHeader;
using internal::RingHeader;
using internal::RingMemory;

constexpr size_t kPage = 4096;
constexpr absl::Duration kNow = absl::ZeroDuration();
constexpr absl::Duration kShort = absl::Milliseconds(1);
// How long a call with kShort may take.
constexpr absl::Duration kSlack = absl::Seconds(5);

UniqueFd Dup(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

// A ring with both ends, and a third mapping, by which either is attacked.
struct Ends {
  Ends() : fd(*CreateRing({.capacity_bytes = kPage})) { Attach(); }

  void Attach() {
    memory.emplace(*RingMemory::Map(fd.get()));
    sender.emplace(*RingSender::FromFd(Dup(fd.get())));
    receiver.emplace(*RingReceiver::FromFd(Dup(fd.get())));
  }
  RingHeader& header() const { return memory->header(); }
  // Writes the header of the record at a position.
  void WriteHeader(uint64_t position, uint64_t header) const {
    std::memcpy(memory->data() + position % kPage, &header, sizeof(header));
  }

  UniqueFd fd;
  std::optional<RingMemory> memory;
  std::optional<RingSender> sender;
  std::optional<RingReceiver> receiver;
};

template <typename T>
absl::StatusCode CodeOf(const absl::StatusOr<T>& result) {
  return result.status().code();
}

// Looks at all of it, so that a sanitizer sees where it lies.
uint64_t Sum(absl::Span<const std::byte> bytes) {
  uint64_t sum = 0;
  for (const std::byte byte : bytes) sum += static_cast<uint64_t>(byte);
  asm volatile("" : : "r"(sum));
  return sum;
}

const std::vector<uint64_t>& StrangeNumbers() {
  static const auto& numbers = *new std::vector<uint64_t>([] {
    std::vector<uint64_t> all;
    for (int bit = 0; bit < 64; ++bit) {
      for (const int64_t by : {-8, -1, 0, 1, 8}) {
        all.push_back((uint64_t{1} << bit) + static_cast<uint64_t>(by));
        all.push_back(~uint64_t{0} - all.back());
      }
    }
    return all;
  }());
  return numbers;
}

TEST(RingHostileTest, TailThatCannotBeIsDataLoss) {
  for (const uint64_t tail :
       {kPage + 8, size_t{1}, size_t{12}, size_t{1} << 40, ~size_t{0} - 7}) {
    Ends ends;
    ends.header().tail.store(tail);
    EXPECT_EQ(CodeOf(ends.receiver->Receive(kNow)),
              absl::StatusCode::kDataLoss);
    EXPECT_EQ(CodeOf(ends.receiver->ReceiveBatch(kNow)),
              absl::StatusCode::kDataLoss);
  }
}

TEST(RingHostileTest, LengthBeyondTheTailIsDataLoss) {
  for (const uint32_t length : {9u, 4096u, 1u << 31, kPadding - 1, kPadding}) {
    Ends ends;
    ASSERT_TRUE(ends.sender->Send("12345678", kNow).ok());
    ends.WriteHeader(0, PackHeader(length, 0));
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(CodeOf(ends.receiver->Receive(kNow)),
                absl::StatusCode::kDataLoss)
          << length;
    }
    absl::StatusOr<Batch> batch = ends.receiver->ReceiveBatch(kNow);
    EXPECT_FALSE(batch.ok() && batch->Next());
  }
}

TEST(RingHostileTest, PaddingAfterPaddingIsDataLoss) {
  Ends ends;
  ASSERT_TRUE(ends.sender->Send(std::string(600, 'x'), kNow).ok());
  ends.WriteHeader(56, PackHeader(kPadding, 0));
  EXPECT_EQ(CodeOf(ends.receiver->Receive(kNow)), absl::StatusCode::kDataLoss);
}

TEST(RingHostileTest, ALengthThatChangesAfterwardsChangesNothing) {
  Ends ends;
  ASSERT_TRUE(ends.sender->Send("12345678", kNow).ok());
  const absl::StatusOr<View> view = ends.receiver->Receive(kNow);
  ends.WriteHeader(0, PackHeader(~0u - 1, 0));
  EXPECT_EQ(view->text(), "12345678");
}

TEST(RingHostileTest, HeadThatCannotBeIsDataLoss) {
  for (const uint64_t head : {uint64_t{kPage} + 8, uint64_t{1} << 40}) {
    Ends ends;
    while (ends.sender->Send("12345678", kNow).ok()) continue;
    ends.header().head.store(head);
    EXPECT_EQ(CodeOf(ends.sender->Reserve(8, kNow)),
              absl::StatusCode::kDataLoss);
    ends.header().head.store(0);
    ends.header().acked.store(head);
    EXPECT_EQ(CodeOf(ends.sender->Reserve(8, kNow)),
              absl::StatusCode::kDataLoss);
  }
}

TEST(RingHostileTest, WhatASuccessorFindsIsChecked) {
  for (const uint64_t number : StrangeNumbers()) {
    for (auto word : {&RingHeader::tail, &RingHeader::head, &RingHeader::acked,
                      &RingHeader::delivered}) {
      Ends ends;
      ASSERT_TRUE(ends.sender->Send("one", kNow).ok());
      ends.sender->Leave();
      ends.receiver->Leave();
      (ends.header().*word).store(number);
      absl::StatusOr<RingSender> sender =
          RingSender::FromFd(Dup(ends.fd.get()));
      absl::StatusOr<RingReceiver> receiver =
          RingReceiver::FromFd(Dup(ends.fd.get()));
      for (int i = 0; i < 3; ++i) {
        if (sender.ok()) (void)sender->Send(std::string(100, 'x'), kNow);
        if (!receiver.ok()) continue;
        const absl::StatusOr<View> view = receiver->Receive(kNow);
        if (view.ok()) Sum(view->data());
      }
    }
  }
}

TEST(RingHostileTest, EachByteOfTheConstants) {
  Ends ends;
  ends.sender->Leave();
  ends.receiver->Leave();
  auto* const bytes = reinterpret_cast<uint8_t*>(&ends.header());
  int refused = 0;
  for (size_t i = 0; i < 56; ++i) {
    const uint8_t before = bytes[i];
    for (int value = 0; value < 256; ++value) {
      bytes[i] = static_cast<uint8_t>(value);
      const absl::StatusOr<RingMemory> memory = RingMemory::Map(ends.fd.get());
      if (!memory.ok()) {
        ++refused;
      } else {
        EXPECT_EQ(memory->capacity(), kPage);
      }
    }
    bytes[i] = before;
  }
  // All but the minor version and what is reserved.
  EXPECT_EQ(refused, (56 - 2 - 4) * 255);
}

TEST(RingHostileTest, ATruncatedOrForeignFileIsRefused) {
  const UniqueFd ring = *CreateRing({.capacity_bytes = kPage});
  std::array<std::byte, 2 * kPage> bytes;
  ASSERT_EQ(pread(ring.get(), bytes.data(), bytes.size(), 0),
            static_cast<ssize_t>(bytes.size()));
  for (const size_t size : {size_t{0}, size_t{15}, size_t{16}, size_t{55},
                            kPage, 2 * kPage - 1, 2 * kPage}) {
    for (const bool sealed : {true, false}) {
      UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
      ASSERT_EQ(write(fd.get(), bytes.data(), size),
                static_cast<ssize_t>(size));
      if (sealed) {
        ASSERT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
      }
      EXPECT_EQ(RingReceiver::FromFd(std::move(fd)).ok(),
                sealed && size == 2 * kPage);
    }
  }
}

// Overwrites random words of what there is in the segment, for as long as it
// lives: positions, states, bells, records.
[[noreturn]] void Scribble(int fd, unsigned seed) {
  const absl::StatusOr<RingMemory> memory = RingMemory::Map(fd);
  std::minstd_rand random(seed);
  auto* const words = reinterpret_cast<std::atomic<uint64_t>*>(
      reinterpret_cast<std::byte*>(&memory->header()));
  constexpr size_t kFirst = offsetof(RingHeader, tail) / 8;
  constexpr size_t kLast = sizeof(RingHeader) / 8;
  while (true) {
    const size_t i = random() % 4 == 0 ? kPage / 8 + random() % (kPage / 8)
                                       : kFirst + random() % (kLast - kFirst);
    uint64_t value;
    switch (random() % 4) {
      case 0:
        value = words[i].load() + 8 * (random() % 64);
        break;
      case 1:
        value = StrangeNumbers()[random() % StrangeNumbers().size()];
        break;
      case 2:
        value = random() % 1024;
        break;
      default:
        value = words[i].load() ^ (uint64_t{1} << random() % 64);
    }
    words[i].store(value);
    for (unsigned n = random() % 256; n > 0; --n) asm volatile("");
  }
}

TEST(RingHostileTest, RandomWordsWhileBothEndsAreAtWork) {
  const unsigned seed = std::random_device()();
  printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const absl::Time end = absl::Now() + absl::Seconds(5);
  uint64_t ok = 0, failed = 0;
  const auto timed = [&](auto call) {
    const absl::Time begin = absl::Now();
    const bool is_ok = call();
    EXPECT_LT(absl::Now() - begin, kSlack);
    ++(is_ok ? ok : failed);
  };
  while (absl::Now() < end) {
    Ends ends;
    const unsigned its_seed = static_cast<unsigned>(random());
    Child scribbler =
        Child::Fork([&]() -> int { Scribble(ends.fd.get(), its_seed); });
    for (int i = 0; i < 2000 && absl::Now() < end; ++i) {
      // No time-out most times, for each takes some.
      const absl::Duration timeout = random() % 64 == 0 ? kShort : kNow;
      switch (random() % 6) {
        case 0:
        case 1:
          timed([&] {
            const std::string text(random() % 1000, 'x');
            return ends.sender->Send(text, timeout).ok();
          });
          break;
        case 2:
          timed([&] {
            absl::StatusOr<Reservation> room =
                ends.sender->Reserve(random() % 4096, timeout);
            if (!room.ok()) return false;
            std::fill(room->span().begin(), room->span().end(), std::byte{7});
            return room->Commit().ok();
          });
          break;
        case 3:
        case 4:
          timed([&] {
            const absl::StatusOr<View> view = ends.receiver->Receive(timeout);
            if (view.ok()) Sum(view->data());
            return view.ok();
          });
          break;
        default:
          timed([&] {
            absl::StatusOr<Batch> batch = ends.receiver->ReceiveBatch(timeout);
            if (!batch.ok()) return false;
            while (batch->Next()) Sum(batch->data());
            return true;
          });
      }
      if (random() % 100 == 0) {
        ends.sender->Leave();
        ends.receiver->Leave();
        absl::StatusOr<RingSender> sender =
            RingSender::FromFd(Dup(ends.fd.get()));
        absl::StatusOr<RingReceiver> receiver =
            RingReceiver::FromFd(Dup(ends.fd.get()));
        if (!sender.ok() || !receiver.ok()) break;
        ends.sender.emplace(*std::move(sender));
        ends.receiver.emplace(*std::move(receiver));
      }
    }
  }
  printf("%lu calls OK, %lu failed\n", static_cast<unsigned long>(ok),
         static_cast<unsigned long>(failed));
  EXPECT_GT(ok, 0u);
  EXPECT_GT(failed, 0u);
}

}  // namespace
}  // namespace ipc::pipe
