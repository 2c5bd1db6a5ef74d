// The two measurements, of any peer (see peers/peer.h): messages one way, and
// round trips. Every byte of every message is written and read, unless a Load
// says otherwise, and each process is pinned to a CPU.
#ifndef TOOLS_BENCH_MEASURE_H_
#define TOOLS_BENCH_MEASURE_H_

#include <time.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tools/bench/clock.h"
#include "tools/bench/crew.h"
#include "tools/bench/die.h"
#include "tools/bench/histogram.h"
#include "tools/bench/peers/peer.h"
#include "tools/bench/shared.h"

namespace bench {

struct Figures {
  double per_second = 0;  // messages, or round trips
  double cpu_ns = 0;      // of all processes, for each of those
  // From the time before a message is filled to when it has been received, or
  // of a round trip.
  double p50_ns = 0;
  double p99_ns = 0;
  double p999_ns = 0;
};

struct Timing {
  double warm_up_ns = 20e6;
  double run_ns = 200e6;
};

// What a message is filled with: `touched` bytes, of which the first eight are
// a time stamp, or zero.
inline void FillMessage(std::byte* message, size_t touched, uint64_t stamp) {
  std::memset(message, static_cast<int>(stamp & 0x7f), touched);
  std::memcpy(message, &stamp, sizeof(stamp));
}

// Reads `touched` bytes; they are a multiple of eight. One function for all
// peers, and more than one load at a time: a loop of one is as fast as where it
// happens to lie allows, twice as fast for the one peer as for the other.
[[gnu::noinline]] inline uint64_t ReadMessage(const std::byte* message,
                                              size_t touched) {
  const auto load = [message](size_t at) {
    uint64_t word;
    std::memcpy(&word, message + at, sizeof(word));
    return word;
  };
  uint64_t sums[4] = {};
  size_t at = 0;
  for (; at + 32 <= touched; at += 32) {
    for (size_t i = 0; i < 4; ++i) sums[i] += load(at + 8 * i);
  }
  for (; at < touched; at += 8) sums[0] += load(at);
  // Whoever compiles this must not know that nobody needs the sums.
  asm volatile("" : : "r"(sums[0] + sums[1] + sums[2] + sums[3]));
  return load(0);
}

inline void Sleep(double ns) {
  const timespec time = {static_cast<time_t>(ns / 1e9),
                         static_cast<long>(ns) % 1'000'000'000};
  nanosleep(&time, nullptr);
}

inline void SetPercentiles(const Histogram& ticks, Figures* figures) {
  figures->p50_ns = TicksToNs(ticks.Percentile(0.5));
  figures->p99_ns = TicksToNs(ticks.Percentile(0.99));
  figures->p999_ns = TicksToNs(ticks.Percentile(0.999));
}

template <typename Peer>
Figures MeasureOneWay(const Load& load, const Timing& timing) {
  // One message in so many says when it was sent: to ask for the time takes
  // longer than the fastest peer does for a message.
  constexpr uint64_t kStampEvery = 64;
  struct alignas(128) Count {
    std::atomic<uint64_t> received;
  };
  constexpr int kMaxReceivers = 16;
  struct Counts {
    Count of[kMaxReceivers];
    Histogram ticks;  // of the first receiver
  };
  TicksToNs(0);
  Shared<Counts> counts;
  Peer peer(load);
  Crew crew;
  for (int i = 0; i < load.receivers; ++i) {
    crew.Start(load.senders + i, [&, i] {
      typename Peer::Receiver receiver(peer, i);
      std::atomic<uint64_t>& received = counts->of[i].received;
      for (uint64_t n = 1;; ++n) {
        uint64_t stamp = 0;
        receiver.Receive([&](const std::byte* message, size_t) {
          stamp = ReadMessage(message, load.bytes);
        });
        if (stamp != 0 && i == 0) counts->ticks.Add(Ticks() - stamp);
        // Nothing else is passed on by it.
        received.store(n, std::memory_order_relaxed);
      }
    });
  }
  for (int i = 0; i < load.senders; ++i) {
    crew.Start(i, [&, i] {
      typename Peer::Sender sender(peer, i);
      for (uint64_t n = 0;; ++n) {
        const uint64_t stamp = n % kStampEvery == 0 ? Ticks() : 0;
        sender.Send(load.bytes, [&](std::byte* message) {
          FillMessage(message, load.bytes, stamp);
        });
      }
    });
  }
  const auto sum = [&] {
    uint64_t all = 0;
    for (const Count& count : counts->of) all += count.received.load();
    return all;
  };
  // Some take a second to find each other.
  const int64_t begin = NowNs();
  while (sum() < 100) {
    crew.CheckAlive();
    if (NowNs() - begin > 20'000'000'000) Die("no message arrives");
    Sleep(1e6);
  }
  Sleep(timing.warm_up_ns);
  const int64_t start = NowNs();
  const uint64_t before = sum();
  const int64_t cpu_before = crew.CpuTimeNs();
  Sleep(timing.run_ns);
  const double messages = static_cast<double>(sum() - before);
  const double ns = static_cast<double>(NowNs() - start);
  const double cpu_ns = static_cast<double>(crew.CpuTimeNs() - cpu_before);
  crew.CheckAlive();
  crew.End();
  Figures figures;
  figures.per_second = messages / ns * 1e9;
  figures.cpu_ns = cpu_ns / messages;
  SetPercentiles(counts->ticks, &figures);
  return figures;
}

struct RoundTrip {
  // The same CPU for both, or one each.
  bool one_cpu = false;
  // Both sides are busy for so long before they send, so that the other one has
  // gone to sleep if it can. Not counted.
  double pause_ns = 0;
  // How many bytes of a message are written and read; 0: all.
  size_t touched = 0;
};

template <typename Peer>
Figures MeasureRoundTrip(const Load& load, const RoundTrip& how,
                         const Timing& timing) {
  struct State {
    Histogram ticks;
    std::atomic<uint64_t> trips;
  };
  const size_t touched = how.touched != 0 ? how.touched : load.bytes;
  const uint64_t pause = NsToTicks(how.pause_ns);
  Shared<State> state;
  Peer there(load);
  Peer back(load);
  Crew crew;
  crew.Start(how.one_cpu ? 0 : 1, [&] {
    typename Peer::Receiver receiver(there, 0);
    typename Peer::Sender sender(back, 0);
    while (true) {
      receiver.Receive([&](const std::byte* message, size_t) {
        ReadMessage(message, touched);
      });
      if (pause != 0) BusyWait(pause);
      sender.Send(load.bytes, [&](std::byte* message) {
        FillMessage(message, touched, 1);
      });
    }
  });
  crew.Start(0, [&] {
    typename Peer::Receiver receiver(back, 0);
    typename Peer::Sender sender(there, 0);
    const uint64_t warm = Ticks() + NsToTicks(timing.warm_up_ns);
    for (uint64_t n = 1;; ++n) {
      if (pause != 0) BusyWait(pause);
      const uint64_t start = Ticks();
      sender.Send(load.bytes, [&](std::byte* message) {
        FillMessage(message, touched, n);
      });
      receiver.Receive([&](const std::byte* message, size_t) {
        ReadMessage(message, touched);
      });
      const uint64_t end = Ticks();
      if (end > warm) state->ticks.Add(end - start - pause);
      state->trips.store(n, std::memory_order_relaxed);
    }
  });
  const int64_t begin = NowNs();
  while (state->trips.load() < 10) {
    crew.CheckAlive();
    if (NowNs() - begin > 20'000'000'000) Die("no message arrives");
    Sleep(1e6);
  }
  Sleep(timing.warm_up_ns);
  const int64_t start = NowNs();
  const uint64_t before = state->trips.load();
  const int64_t cpu_before = crew.CpuTimeNs();
  Sleep(timing.run_ns);
  const double trips = static_cast<double>(state->trips.load() - before);
  const double ns = static_cast<double>(NowNs() - start);
  const double cpu_ns = static_cast<double>(crew.CpuTimeNs() - cpu_before);
  crew.CheckAlive();
  crew.End();
  Figures figures;
  figures.per_second = trips / ns * 1e9;
  // The pauses are no work of the peer's.
  figures.cpu_ns = cpu_ns / trips - 2 * how.pause_ns;
  SetPercentiles(state->ticks, &figures);
  return figures;
}

}  // namespace bench

#endif  // TOOLS_BENCH_MEASURE_H_
