// A HashMap<K, V> is a table in an Arena, for all who attach to that.
//
// Example:
//
//   using Prices = HashMap<int64_t, double>;
//   {
//     absl::StatusOr<Arena::Guard> guard = arena.Lock();
//     absl::StatusOr<Prices> prices = Prices::Create(*guard, 1000);
//     if (auto status = prices->Set(42, 2.5); !status.ok()) return status;
//     if (auto status = guard->SetRoot(prices->pointer()); ...
//   }
//   {  // elsewhere
//     absl::StatusOr<Arena::Guard> guard = arena.Lock();
//     absl::StatusOr<Prices> prices =
//         Prices::At(*guard, *guard->root<Prices::Header>());
//     const double* price = prices->Find(42);  // nullptr if it is not there
//   }
//
// What a Guard does to it is there whole or not at all, see ipc/shm/arena.h.
// A member that fails has changed nothing.
//
// Chains of nodes behind a fixed number of buckets: it does not grow by itself,
// as one Guard's undo log would have to hold all of it. Take about as many
// buckets as keys are expected. Keys are compared and hashed by their bytes, by
// the same function in all programs (FNV-1a), so they have no padding and are
// no floats; std::array<char, n> will do for text.
//
// Lifetime: not beyond the Guard. Addresses that Find gives are good until the
// Guard ends or the key is erased. Thread safety: as of the Guard.
#ifndef IPC_SHM_HASH_MAP_H_
#define IPC_SHM_HASH_MAP_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ipc/shm/arena.h"
#include "ipc/shm/layout.h"
#include "ipc/shm/offset_ptr.h"
#include "ipc/shm/shared_memory_safe.h"

namespace ipc::shm {

template <typename K>
concept IsComparedByItsBytes = std::has_unique_object_representations_v<K>;

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K>
class HashMap {
 public:
  // As they lie in the arena.
  struct Node {
    OffsetPtr<Node> next;
    K key;
    V value;
  };
  struct Header {
    static constexpr uint64_t kLayoutId =
        internal::Hash(internal::Hash(LayoutId("ipc.shm.HashMap/1"),
                                      internal::LayoutHash<K>("key", 1)),
                       internal::LayoutHash<V>("value", 1));
    uint64_t size;
    uint64_t buckets;
    OffsetPtr<OffsetPtr<Node>> table;
  };

  // An empty one. InvalidArgument without buckets; ResourceExhausted if there
  // is no room.
  static absl::StatusOr<HashMap> Create(Arena::Guard& guard, size_t buckets);
  // The one that was created there. InvalidArgument if there is none.
  static absl::StatusOr<HashMap> At(Arena::Guard& guard,
                                    OffsetPtr<Header> pointer);

  // Where it is, for a root or a member of something else.
  OffsetPtr<Header> pointer() const { return pointer_; }
  size_t size() const { return header().size; }

  // nullptr if it is not there.
  const V* Find(const K& key) const;
  // Adds it, or gives it another value. ResourceExhausted if there is no room
  // in the arena, or in the log.
  absl::Status Set(const K& key, const V& value);
  // NotFound if it is not there; ResourceExhausted if the log is full.
  absl::Status Erase(const K& key);

  // Calls visit(key, value) for all, in no order.
  template <typename Visit>
  void ForEach(Visit visit) const;

  // Frees all of it. With ResourceExhausted, if the log is full, it is freed in
  // part: RollBack.
  absl::Status Destroy();

 private:
  // Where a key is, or would be.
  struct Place {
    OffsetPtr<OffsetPtr<Node>> link;  // what leads to it
    OffsetPtr<Node> node;             // null if it is not there
  };

  HashMap(Arena::Guard& guard, OffsetPtr<Header> pointer)
      : guard_(&guard), pointer_(pointer) {}

  // Checked by At.
  const Header& header() const { return *guard_->Get(pointer_); }
  absl::Span<const OffsetPtr<Node>> table() const {
    return guard_->GetArray(header().table, header().buckets);
  }
  // How many nodes there are, or may be if a peer wrote rubbish.
  size_t MostNodes() const {
    return std::min<size_t>(header().size, guard_->MostOf<Node>());
  }
  // Calls visit(link, node) along a chain until it returns false, or it was
  // called `budget` times, from which it takes each call: not for ever, even if
  // a peer has made a circle of it.
  template <typename Visit>
  void Walk(size_t bucket, size_t* budget, Visit visit) const;
  Place Locate(const K& key) const;

  Arena::Guard* guard_;
  OffsetPtr<Header> pointer_;
};

// Implementation details follow.

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K> absl::StatusOr<HashMap<K, V>>
HashMap<K, V>::Create(Arena::Guard& guard, size_t buckets) {
  if (buckets == 0) {
    return absl::InvalidArgumentError("a HashMap without buckets: take one");
  }
  const Arena::Guard::Savepoint before = guard.MakeSavepoint();
  const auto table = guard.NewArray<OffsetPtr<Node>>(buckets);
  if (!table.ok()) return table.status();
  const auto header =
      guard.New(Header{.size = 0, .buckets = buckets, .table = *table});
  if (!header.ok()) {
    guard.RollBack(before);
    return header.status();
  }
  return HashMap(guard, *header);
}

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K> absl::StatusOr<HashMap<K, V>>
HashMap<K, V>::At(Arena::Guard& guard, OffsetPtr<Header> pointer) {
  const Header* const header = guard.Get(pointer);
  if (header == nullptr || header->buckets == 0 ||
      guard.GetArray(header->table, header->buckets).empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no HashMap is at offset ", pointer.offset,
                     " of the Arena: Create it first"));
  }
  return HashMap(guard, pointer);
}

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K>
template <typename Visit>
void HashMap<K, V>::Walk(size_t bucket, size_t* budget, Visit visit) const {
  OffsetPtr<OffsetPtr<Node>> link = {header().table.offset +
                                     bucket * sizeof(OffsetPtr<Node>)};
  for (; *budget > 0; --*budget) {
    const OffsetPtr<Node>* const next = guard_->Get(link);
    if (next == nullptr) return;
    const OffsetPtr<Node> node = *next;
    if (guard_->Get(node) == nullptr || !visit(link, node)) return;
    static_assert(offsetof(Node, next) == 0);
    link = {node.offset};
  }
}

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K>
typename HashMap<K, V>::Place HashMap<K, V>::Locate(const K& key) const {
  uint64_t hash = internal::kFnvBasis;
  for (size_t i = 0; i < sizeof(K); ++i) {
    const auto byte = reinterpret_cast<const unsigned char*>(&key)[i];
    hash = (hash ^ byte) * internal::kFnvPrime;
  }
  const absl::Span<const OffsetPtr<Node>> buckets = table();
  if (buckets.empty()) return {};
  // The lower bits of FNV-1a depend on the lower bits of the bytes only.
  const size_t bucket = (hash ^ hash >> 32) % buckets.size();
  // A new one comes first in its chain.
  Place place = {{header().table.offset + bucket * sizeof(OffsetPtr<Node>)},
                 {}};
  size_t budget = MostNodes();
  Walk(bucket, &budget,
       [&](OffsetPtr<OffsetPtr<Node>> link, OffsetPtr<Node> node) {
         if (std::memcmp(&guard_->Get(node)->key, &key, sizeof(K)) != 0)
           return true;
         place = {link, node};
         return false;
       });
  return place;
}

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K>
const V* HashMap<K, V>::Find(const K& key) const {
  const Node* const node = guard_->Get(Locate(key).node);
  return node == nullptr ? nullptr : &node->value;
}

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K> absl::Status HashMap<K, V>::Set(
    const K& key, const V& value) {
  const Place place = Locate(key);
  if (place.node) {
    const auto node = guard_->Change(place.node);
    if (!node.ok()) return node.status();
    (*node)->value = value;
    return absl::OkStatus();
  }
  // What can fail comes first.
  const auto link = guard_->Change(place.link);
  if (!link.ok()) return link.status();
  const auto header = guard_->Change(pointer_);
  if (!header.ok()) return header.status();
  const auto node =
      guard_->New(Node{.next = **link, .key = key, .value = value});
  if (!node.ok()) return node.status();
  **link = *node;
  ++(*header)->size;
  return absl::OkStatus();
}

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K> absl::Status HashMap<K, V>::Erase(
    const K& key) {
  const Place place = Locate(key);
  if (!place.node) return absl::NotFoundError("the HashMap has no such key");
  // What can fail comes first.
  const auto link = guard_->Change(place.link);
  if (!link.ok()) return link.status();
  const auto header = guard_->Change(pointer_);
  if (!header.ok()) return header.status();
  if (auto status = guard_->Free(place.node); !status.ok()) return status;
  **link = guard_->Get(place.node)->next;  // it is not used again so soon
  --(*header)->size;
  return absl::OkStatus();
}

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K>
template <typename Visit>
void HashMap<K, V>::ForEach(Visit visit) const {
  size_t budget = MostNodes();
  for (size_t i = 0; i < table().size() && budget > 0; ++i) {
    Walk(i, &budget, [&](OffsetPtr<OffsetPtr<Node>>, OffsetPtr<Node> at) {
      const Node& node = *guard_->Get(at);
      visit(node.key, node.value);
      return true;
    });
  }
}

template <SharedMemorySafe K, SharedMemorySafe V>
requires IsComparedByItsBytes<K> absl::Status HashMap<K, V>::Destroy() {
  absl::Status status;
  size_t budget = MostNodes();
  for (size_t i = 0; i < table().size() && budget > 0; ++i) {
    Walk(i, &budget, [&](OffsetPtr<OffsetPtr<Node>>, OffsetPtr<Node> node) {
      status.Update(guard_->Free(node));
      return status.ok();
    });
  }
  if (status.ok()) status = guard_->Free(header().table);
  if (status.ok()) status = guard_->Free(pointer_);
  return status;
}

}  // namespace ipc::shm

#endif  // IPC_SHM_HASH_MAP_H_
