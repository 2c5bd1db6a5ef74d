// How fast ipc/shm is, side by side with what else there is.
//
//   bazel run -c opt //tools/bench:shm_bench -- [--runs 5] [--ms 100]
//       [--only WORDS] [--check]
//
// Each row is an operation, repeated by one process or by two, pinned to a CPU
// each. See report.h for what counts.
#include <pthread.h>
#include <string.h>

#include <array>
#include <atomic>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_sharable_mutex.hpp>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ipc/base/spin_wait.h"
#include "ipc/shm/array.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/recursive_mutex.h"
#include "ipc/shm/semaphore.h"
#include "ipc/shm/shared_mutex.h"
#include "ipc/shm/value.h"
#include "tools/bench/bench_main.h"
#include "tools/bench/die.h"
#include "tools/bench/loops.h"
#include "tools/bench/measure.h"
#include "tools/bench/python.h"
#include "tools/bench/report.h"
#include "tools/bench/shared.h"

// ThreadSanitizer does not model the fences of the plain seqlock, GCC warns.
// Nobody measures under it.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

namespace bench {
namespace {

using ipc::shm::Array;
using ipc::shm::BoundedSemaphore;
using ipc::shm::Mutex;
using ipc::shm::RecursiveMutex;
using ipc::shm::SharedMutex;
using ipc::shm::Value;

using Block = std::array<uint64_t, 512>;

Timing timing;

template <typename T>
T Get(absl::StatusOr<T> result) {
  if (!result.ok()) Die(std::string(result.status().message()).c_str());
  return *std::move(result);
}

// A pthread mutex in shared memory, as a standard lock.
class PthreadMutex {
 public:
  explicit PthreadMutex(bool robust) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (robust) {
      pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    }
    pthread_mutex_init(&mutex_, &attributes);
  }
  void lock() {
    if (pthread_mutex_lock(&mutex_) != 0) Die("pthread_mutex_lock");
  }
  void unlock() { pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t mutex_;
};

// What is between two words of it would be torn; readers try until it is not.
// It waits for ever where a writer is killed.
struct PlainSeqlock {
  std::atomic<uint64_t> sequence;
  Block block;

  void Store(const Block& from) {
    sequence.store(sequence.load(std::memory_order_relaxed) + 1,
                   std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    memcpy(&block, &from, sizeof(block));
    sequence.store(sequence.load(std::memory_order_relaxed) + 1,
                   std::memory_order_release);
  }
  void Load(Block* to) {
    uint64_t before;
    do {
      before = sequence.load(std::memory_order_acquire);
      memcpy(to, &block, sizeof(block));
      std::atomic_thread_fence(std::memory_order_acquire);
    } while (before % 2 != 0 ||
             sequence.load(std::memory_order_relaxed) != before);
  }
};

Row PythonValue(const std::string& operation) {
  return {"Python Value", [operation] {
            Figures figures;
            figures.per_second =
                RunPython("python_value.py",
                          {operation, absl::StrCat(timing.run_ns / 1e6)}, 1)[0];
            return figures;
          }};
}

// One process that loads or stores a number under a lock.
template <typename M, typename... Arguments>
Row NumberUnder(const std::string& name, Arguments... arguments) {
  return {name, [=] {
            Shared<M> mutex(arguments...);
            Shared<int64_t> number(7);
            return MeasureLoops(timing, [&] {
              const std::lock_guard<M> lock(*mutex);
              Use(*number);
            });
          }};
}

std::vector<Table> Numbers() {
  const Target target = {.rate_at_least = 1 / 1.5};
  const Row load = {"Value<int64_t>::Load", [] {
                      auto value = Get(Value<int64_t>::CreateAnonymous(7));
                      return MeasureLoops(timing, [&] { Use(*value.Load()); });
                    }};
  const Row bare_load = {"relaxed atomic load",
                         [] {
                           Shared<std::atomic<int64_t>> value(7);
                           return MeasureLoops(timing, [&] {
                             Use(value->load(std::memory_order_relaxed));
                           });
                         },
                         target};
  const Row store = {"Value<int64_t>::Store", [] {
                       auto value = Get(Value<int64_t>::CreateAnonymous(7));
                       int64_t n = 0;
                       return MeasureLoops(timing, [&] {
                         if (!value.Store(++n).ok()) Die("cannot store");
                       });
                     }};
  const Row bare_store = {"relaxed atomic store",
                          [] {
                            Shared<std::atomic<int64_t>> value(7);
                            int64_t n = 0;
                            return MeasureLoops(timing, [&] {
                              value->store(++n, std::memory_order_relaxed);
                            });
                          },
                          target};
  const Row update = {"Value<int64_t>::Update", [] {
                        auto value = Get(Value<int64_t>::CreateAnonymous(7));
                        return MeasureLoops(timing, [&] {
                          Use(*value.Update([](int64_t n) { return n + 1; }));
                        });
                      }};
  const Row bare_update = {"atomic fetch_add", [] {
                             Shared<std::atomic<int64_t>> value(7);
                             return MeasureLoops(
                                 timing, [&] { Use(value->fetch_add(1)); });
                           }};
  const Row pthread = NumberUnder<PthreadMutex>("pthread mutex", false);
  const Row robust = NumberUnder<PthreadMutex>("pthread mutex, robust", true);
  const Row boost = NumberUnder<boost::interprocess::interprocess_mutex>(
      "Boost interprocess_mutex");
  return {
      {.title = "Value of 8 bytes, load",
       .rows = {load, bare_load, pthread, robust, boost, PythonValue("load")}},
      {.title = "Value of 8 bytes, store",
       .rows = {store, bare_store, pthread, robust, boost,
                PythonValue("store")}},
      {.title = "Value of 8 bytes, update", .rows = {update, bare_update}}};
}

// A writer that does nothing but store, or none.
template <typename Load, typename Store>
Figures MeasureSnapshot(bool with_writer, const Load& load,
                        const Store& store) {
  if (!with_writer) return MeasureLoops(timing, load);
  return MeasureLoops<Counted::kFirst>(timing, load, store);
}

Row ValueSnapshot(bool with_writer, bool into) {
  return {into ? "Value<4 KiB>::LoadInto" : "Value<4 KiB>::Load", [=] {
            auto value = Get(Value<Block>::CreateAnonymous());
            Block block = {};
            const auto store = [&] {
              ++block[0];
              Use(value.Store(block).ok());
            };
            if (!into) {
              return MeasureSnapshot(
                  with_writer, [&] { Use(value.Load()); }, store);
            }
            auto to = std::make_unique<Block>();
            return MeasureSnapshot(
                with_writer, [&] { Use(value.LoadInto(*to)); }, store);
          }};
}

template <typename M, typename... Arguments>
Row BlockUnder(const std::string& name, bool with_writer,
               Arguments... arguments) {
  return {name, [=] {
            Shared<M> mutex(arguments...);
            Shared<Block> shared;
            Block own = {};
            return MeasureSnapshot(
                with_writer,
                [&] {
                  const std::lock_guard<M> lock(*mutex);
                  memcpy(&own, shared.get(), sizeof(own));
                  Use(own);
                },
                [&] {
                  ++own[0];
                  const std::lock_guard<M> lock(*mutex);
                  memcpy(shared.get(), &own, sizeof(own));
                });
          }};
}

Row SeqlockSnapshot(bool with_writer) {
  return {"plain seqlock", [=] {
            Shared<PlainSeqlock> seqlock;
            Block block = {};
            return MeasureSnapshot(
                with_writer,
                [&] {
                  seqlock->Load(&block);
                  Use(block);
                },
                [&] {
                  ++block[0];
                  seqlock->Store(block);
                });
          }};
}

std::vector<Table> Snapshots() {
  const Row copy = {"memcpy",
                    [] {
                      Shared<Block> shared;
                      Block own = {};
                      return MeasureLoops(timing, [&] {
                        memcpy(&own, shared.get(), sizeof(own));
                        Use(own);
                      });
                    },
                    {.rate_at_least = 1 / 1.5}};
  const Row bound = {"(a mean of 1 us)",
                     [] { return Figures{.per_second = 1e6}; },
                     {.rate_at_least = 1}};
  return {
      {.title = "Value of 4 KiB, snapshot without a writer",
       .rows = {ValueSnapshot(false, true), copy, ValueSnapshot(false, false),
                SeqlockSnapshot(false),
                BlockUnder<PthreadMutex>("pthread mutex, robust", false,
                                         true)}},
      {.title = "Value of 4 KiB, snapshot while another process stores",
       .rows = {ValueSnapshot(true, true), bound, SeqlockSnapshot(true),
                BlockUnder<PthreadMutex>("pthread mutex, robust", true, true)}},
  };
}

// Lock and unlock, of objects that a segment of their own holds.
template <typename M, typename... Shape>
Row OurLock(const std::string& name, Shape... shape) {
  return {name, [=] {
            auto mutex = Get(M::CreateAnonymous(shape...));
            return MeasureLoops(timing, [&] {
              mutex.lock();
              mutex.unlock();
            });
          }};
}

template <typename M, typename... Arguments>
Row OtherLock(const std::string& name, const Target& target,
              Arguments... arguments) {
  return {name,
          [=] {
            Shared<M> mutex(arguments...);
            return MeasureLoops(timing, [&] {
              mutex->lock();
              mutex->unlock();
            });
          },
          target};
}

std::vector<Table> Uncontended() {
  const Row shared = {"SharedMutex, shared", [] {
                        auto mutex = Get(SharedMutex::CreateAnonymous());
                        return MeasureLoops(timing, [&] {
                          mutex.lock_shared();
                          mutex.unlock_shared();
                        });
                      }};
  const Row guard = {"Mutex, by a Guard", [] {
                       auto mutex = Get(Mutex::CreateAnonymous());
                       return MeasureLoops(timing, [&] { Use(mutex.Lock()); });
                     }};
  const Row permit = {
      "BoundedSemaphore", [] {
        auto semaphore = Get(BoundedSemaphore::CreateAnonymous(4));
        return MeasureLoops(timing, [&] { Use(semaphore.Acquire()); });
      }};
  using boost::interprocess::interprocess_mutex;
  using boost::interprocess::interprocess_sharable_mutex;
  return {{.title = "lock and unlock, uncontended",
           .rows = {OurLock<Mutex>("Mutex"),
                    OtherLock<PthreadMutex>("pthread mutex, robust",
                                            {.rate_at_least = 1 / 0.8}, true),
                    OtherLock<PthreadMutex>("pthread mutex", {}, false),
                    OtherLock<interprocess_mutex>("Boost mutex", {}),
                    OtherLock<std::mutex>("std::mutex (one process)", {}),
                    guard, OurLock<RecursiveMutex>("RecursiveMutex"),
                    OurLock<SharedMutex>("SharedMutex, exclusive"), shared,
                    OtherLock<interprocess_sharable_mutex>(
                        "Boost sharable mutex, exclusive", {}),
                    permit}}};
}

struct alignas(64) Turns {
  int next = 0;
  uint64_t taken = 0;
};

// How two processes contend for a mutex.
enum class Contention {
  kFree,      // whoever gets it counts on
  kTurns,     // only if it is its turn; otherwise it tries again at once
  kHandOver,  // its holder gives it back once the other one asks for it, and
              // counts if it had it from the other one
};

template <typename M>
Figures MeasureContended(M& mutex, Contention contention) {
  Shared<Turns> turns;
  Shared<Turns> asks[2];
  const auto hand_over_as = [&](int me) {
    return [&, me] {
      std::atomic_ref mine(asks[me]->next);
      std::atomic_ref others(asks[1 - me]->next);
      for (bool handed_over = false; !handed_over;) {
        mine.store(1, std::memory_order_relaxed);
        const std::lock_guard<M> lock(mutex);
        mine.store(0, std::memory_order_relaxed);
        handed_over = turns->next != me;
        turns->next = me;
        while (others.load(std::memory_order_relaxed) == 0) ipc::Pause();
      }
    };
  };
  if (contention == Contention::kHandOver) {
    return MeasureLoops(timing, hand_over_as(0), hand_over_as(1));
  }
  const auto as = [&](int me) {
    return [&, me, by_turns = contention == Contention::kTurns] {
      for (bool done = false; !done;) {
        const std::lock_guard<M> lock(mutex);
        done = !by_turns || turns->next == me;
        if (!done) continue;
        turns->next = 1 - me;
        ++turns->taken;
      }
    };
  };
  return MeasureLoops(timing, as(0), as(1));
}

template <typename M, typename... Arguments>
Row OtherContended(const std::string& name, Contention contention,
                   const Target& target, Arguments... arguments) {
  return {name,
          [=] {
            Shared<M> mutex(arguments...);
            return MeasureContended(*mutex, contention);
          },
          target};
}

std::vector<Table> Contended() {
  std::vector<Table> tables;
  for (const auto& [contention, what] :
       {std::pair(Contention::kHandOver, ", handed over to one who waits"),
        std::pair(Contention::kTurns, ", in turns"),
        std::pair(Contention::kFree, "")}) {
    tables.push_back(
        {.title = absl::StrCat("a mutex contended by two processes", what),
         .rows = {
             {"Mutex",
              [contention = contention] {
                auto mutex = Get(Mutex::CreateAnonymous());
                return MeasureContended(mutex, contention);
              }},
             OtherContended<PthreadMutex>("pthread mutex, robust", contention,
                                          {.rate_at_least = 1}, true),
             OtherContended<PthreadMutex>("pthread mutex", contention, {},
                                          false),
             OtherContended<boost::interprocess::interprocess_mutex>(
                 "Boost mutex", contention, {})}});
  }
  return tables;
}

// What the one does whose operations count, and the other one beside it.
enum class Role { kRead, kWrite };

template <typename M>
Figures MeasureReaders(M& mutex, Role counted, Role other) {
  Shared<Turns> data;
  const auto as = [&](Role role) {
    return [&, role] {
      if (role == Role::kRead) {
        mutex.lock_shared();
        Use(data->taken);
        mutex.unlock_shared();
      } else {
        const std::lock_guard<M> lock(mutex);
        ++data->taken;
      }
    };
  };
  return MeasureLoops<Counted::kFirst>(timing, as(counted), as(other));
}

// Boost's names for the same.
struct BoostSharableMutex : boost::interprocess::interprocess_sharable_mutex {
  void lock_shared() { lock_sharable(); }
  void unlock_shared() { unlock_sharable(); }
};

std::vector<Table> Readers() {
  struct Case {
    std::string title;
    Role counted;
    Role other;
  };
  std::vector<Table> tables;
  for (const Case& c : {Case{"a shared mutex, a reader beside another reader",
                             Role::kRead, Role::kRead},
                        Case{"a shared mutex, a reader beside a writer",
                             Role::kRead, Role::kWrite},
                        Case{"a shared mutex, a writer beside a reader",
                             Role::kWrite, Role::kRead},
                        Case{"a shared mutex, a writer beside another writer",
                             Role::kWrite, Role::kWrite}}) {
    tables.push_back(
        {.title = c.title,
         .rows = {
             {"SharedMutex",
              [c] {
                auto mutex = Get(SharedMutex::CreateAnonymous());
                return MeasureReaders(mutex, c.counted, c.other);
              }},
             {"Boost sharable mutex",
              [c] {
                Shared<BoostSharableMutex> mutex;
                return MeasureReaders(*mutex, c.counted, c.other);
              },
              // With a writer that comes again and again, a reader of Boost's
              // waits 11 us. Beside a reader its writer is faster: it lets
              // hardly any reader in.
              {.rate_at_least =
                   c.counted == Role::kRead && c.other == Role::kWrite ? 20.0
                                                                       : 0}}}});
  }
  return tables;
}

std::vector<Table> Arrays() {
  std::vector<Table> tables;
  for (const size_t bytes :
       {size_t{64} << 10, size_t{1} << 20, size_t{16} << 20}) {
    const auto make = [bytes] {
      return Get(Array<std::byte>::CreateAnonymous(bytes));
    };
    const auto copy = [bytes](bool out) {
      return Row{"memcpy",
                 [=] {
                   const SharedBytes shared(bytes);
                   const SharedBytes own(bytes);
                   return MeasureLoops(timing, [&] {
                     if (out) {
                       memcpy(own.data(), shared.data(), bytes);
                     } else {
                       memcpy(shared.data(), own.data(), bytes);
                     }
                     Use(own.data());
                   });
                 },
                 {.rate_at_least = 0.9}};
    };
    tables.push_back(
        {.title = absl::StrCat("Array of ", bytes >> 10, " KiB, read"),
         .rows = {{"Array::SnapshotInto",
                   [=] {
                     auto array = make();
                     const SharedBytes own(bytes);
                     return MeasureLoops(timing, [&] {
                       Use(array.SnapshotInto(
                           absl::MakeSpan(own.data(), bytes)));
                     });
                   }},
                  copy(true)},
         .bytes = static_cast<double>(bytes)});
    tables.push_back(
        {.title = absl::StrCat("Array of ", bytes >> 10, " KiB, write"),
         .rows = {{"Array::Lock and memcpy",
                   [=] {
                     auto array = make();
                     const SharedBytes own(bytes);
                     return MeasureLoops(timing, [&] {
                       auto guard = Get(array.Lock());
                       memcpy(guard.span().data(), own.data(), bytes);
                     });
                   }},
                  copy(false)},
         .bytes = static_cast<double>(bytes)});
  }
  return tables;
}

int Main(int argc, char** argv) {
  return BenchMain(
      argc, argv, "How fast ipc/shm is, beside its peers.", 100, &timing,
      {Numbers, Snapshots, Uncontended, Contended, Readers, Arrays});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) { return bench::Main(argc, argv); }
