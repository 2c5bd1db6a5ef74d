#include "ipc/shm/arena.h"

#include <algorithm>
#include <atomic>

#include "absl/strings/str_cat.h"

namespace ipc::shm {

// The layout:
//
//   Header       the layout word, the lock, the number of the last transaction
//   undo log     for ranges of what follows
//   heap
//     HeapHeader
//     blocks     each a Block and its payload, without gaps up to the end, or
//                up to one whose word is 0: that is the rest, free, and what is
//                in it is of no account
//
// All bytes of the heap that mean something are changed under the lock, and
// after they are in the undo log; but for the payload of what was free when the
// lock was taken, and headers within it. So it does not matter what order the
// changes have. Before there is anything in the log, free neighbours are joined
// without it, by one store: see Join.
//
// Words are read once, by relaxed atomics, as others may write what they want.

struct Arena::Header {
  std::atomic<uint64_t> layout;
  internal::RobustLock lock;
  std::atomic<uint64_t> transaction;
  uint64_t reserved[4];
};

struct Arena::Guard::HeapHeader {
  std::atomic<uint64_t> root;
  std::atomic<uint64_t> root_layout;
  std::atomic<uint64_t> next;  // the block to look at first; 0: at the first
  uint64_t reserved[5];
};

struct Arena::Guard::Block {
  // kMagic in the 16 highest bits, the size with this header, and kUsed.
  std::atomic<uint64_t> word;
  // In which it was made or freed.
  std::atomic<uint64_t> transaction;
};

// A private copy.
struct Arena::Guard::Found {
  size_t size;
  bool used;
  bool is_rest;
  uint64_t transaction;
};

namespace {

constexpr uint64_t kMagic = uint64_t{0xa4e7} << 48;
constexpr uint64_t kUsed = 1;
constexpr size_t kUnit = 16;
constexpr size_t kMinBlock = 32;

constexpr size_t RoundUp(size_t n, size_t unit) {
  return (n + unit - 1) / unit * unit;
}

}  // namespace

absl::StatusOr<Arena> Arena::Attach(Segment segment, size_t offset,
                                    size_t bytes, size_t undo_bytes) {
  static_assert(sizeof(Header) == internal::kObjectHeaderSize);
  static_assert(offsetof(Header, lock) == 8);
  static_assert(sizeof(Guard::HeapHeader) == kHeapHeaderSize);
  if (undo_bytes == 0 || undo_bytes % 8 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("an Arena with an undo log of ", undo_bytes,
                     " bytes: take a multiple of 8, and more than the changes "
                     "of one Guard"));
  }
  auto object =
      Find(segment, offset, SizeBytes(bytes, undo_bytes), "Arena",
           internal::Hash(internal::LayoutHash("Arena", bytes), undo_bytes));
  if (!object.ok()) return object.status();
  return Arena(std::move(segment), *object, bytes, undo_bytes);
}

absl::StatusOr<Arena::Guard> Arena::Lock(absl::Duration timeout) {
  auto* const header = reinterpret_cast<Header*>(object());
  auto hold =
      internal::RobustLockHold::Acquire(segment(), header->lock, timeout);
  if (!hold.ok()) return hold.status();
  const absl::Span<std::byte> heap(object() + HeapOffset(undo_bytes_),
                                   HeapBytes(bytes_));
  Guard guard(*std::move(hold), header,
              internal::UndoLog(object() + internal::kObjectHeaderSize,
                                undo_bytes_, heap),
              heap);
  if (guard.hold_.previous_owner_died()) {
    if (!guard.undo_.RollBack()) {
      return absl::DataLossError(absl::StrCat(
          "locking an Arena in shm segment, fd ", fd(),
          ": the undo log of a holder that was killed makes no sense, so "
          "somebody has scribbled over it; make another Arena"));
    }
    guard.previous_owner_died_ = true;
    guard.hold_.MarkConsistent();
  }
  return guard;
}

Arena::Guard::Guard(internal::RobustLockHold hold, Header* header,
                    internal::UndoLog undo, absl::Span<std::byte> heap)
    : hold_(std::move(hold)), header_(header), undo_(undo), heap_(heap) {
  NextTransaction();
  begin_ = current_;
}

Arena::Guard::~Guard() {
  // Dirty it stays if the log made no sense.
  if (!hold_.IsHeld() || hold_.previous_owner_died()) return;
  undo_.Clear();
}

void Arena::Guard::NextTransaction() {
  // Relaxed: under the lock. A number that was used by one who died is not used
  // again.
  current_ = header_->transaction.load(std::memory_order_relaxed) + 1;
  header_->transaction.store(current_, std::memory_order_relaxed);
  recent_ = {};
}

Arena::Guard::Savepoint Arena::Guard::MakeSavepoint() {
  NextTransaction();
  return {undo_.Mark()};
}

void Arena::Guard::RollBack(Savepoint to) {
  if (!hold_.IsHeld()) return;  // a forked child's
  NextTransaction();
  // It was we who wrote it. If somebody scribbles over it meanwhile, the arena
  // is not more broken than by any other scribbling.
  undo_.RollBack(to.position);
}

Arena::Guard::Block& Arena::Guard::BlockAt(size_t offset) const {
  return *reinterpret_cast<Block*>(heap_.data() + offset);
}

Arena::Guard::HeapHeader& Arena::Guard::heap_header() const {
  return *reinterpret_cast<HeapHeader*>(heap_.data());
}

// REQUIRES: `offset` is a multiple of kUnit, behind the header, before the end.
absl::Status Arena::Guard::Read(size_t offset, Found* found) const {
  const Block& block = BlockAt(offset);
  const uint64_t word = block.word.load(std::memory_order_relaxed);
  const size_t room = heap_.size() - offset;
  if (word == 0) {
    *found = {.size = room, .used = false, .is_rest = true, .transaction = 0};
    return absl::OkStatus();
  }
  const uint64_t size = (word ^ kMagic) & ~kUsed;
  if (size < kMinBlock || size > room || size % kUnit != 0) {
    return absl::DataLossError(
        absl::StrCat("an Arena has no block at ", offset, " but ", word,
                     ": somebody has written out of bounds; make another"));
  }
  *found = {.size = size,
            .used = (word & kUsed) != 0,
            .is_rest = false,
            .transaction = block.transaction.load(std::memory_order_relaxed)};
  return absl::OkStatus();
}

bool Arena::Guard::IsUsable(const Found& found) const {
  return !found.used && (found.is_rest || found.transaction < begin_);
}

// Whether a block begins there that the current transaction has made.
bool Arena::Guard::IsFresh(size_t offset) const {
  if (offset < kHeapHeaderSize + sizeof(Block) || offset >= heap_.size() ||
      offset % kUnit != 0) {
    return false;
  }
  Found found;
  return Read(offset - sizeof(Block), &found).ok() && found.used &&
         found.transaction == current_;
}

absl::Status Arena::Guard::Protect(size_t offset, size_t bytes) {
  Range& recent = recent_[offset / 8 % recent_.size()];
  if (recent.offset == offset && recent.bytes >= bytes) return absl::OkStatus();
  if (undo_.Save(offset, bytes)) {
    recent = {offset, bytes};
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "changing ", bytes,
      " bytes of an Arena: the undo log is full; end the Guard now and then, "
      "or create the Arena with more undo_bytes"));
}

absl::Status Arena::Guard::SetNext(size_t offset) {
  HeapHeader& header = heap_header();
  if (auto status = Protect(offsetof(HeapHeader, next), sizeof(header.next));
      !status.ok()) {
    return status;
  }
  header.next.store(offset, std::memory_order_relaxed);
  return absl::OkStatus();
}

// Takes a usable block and usable ones behind it for one, until it has `enough`
// bytes or there are no more. Changes nothing.
absl::Status Arena::Guard::Extend(size_t offset, size_t enough,
                                  Found* found) const {
  while (found->size < enough && !found->is_rest &&
         offset + found->size < heap_.size()) {
    Found next;
    if (auto status = Read(offset + found->size, &next); !status.ok()) {
      return status;
    }
    if (!IsUsable(next)) break;
    found->size += next.size;
    found->is_rest = next.is_rest;
  }
  return absl::OkStatus();
}

// Makes one block of those that Extend found, for good. REQUIRES: the log is
// empty, or else it might bring back one of their headers.
void Arena::Guard::Join(size_t offset, const Found& found) {
  HeapHeader& header = heap_header();
  const uint64_t next = header.next.load(std::memory_order_relaxed);
  if (next > offset && next < offset + found.size) {
    header.next.store(offset, std::memory_order_relaxed);
  }
  // Whoever is killed leaves the search with a block to begin at.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  // And whole blocks: by this one store those behind it become payload.
  BlockAt(offset).word.store(found.is_rest ? 0 : kMagic | found.size,
                             std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

// Of usable blocks that Extend found `need` bytes behind the first `lead`.
absl::Status Arena::Guard::Take(size_t offset, const Found& found, size_t lead,
                                size_t need) {
  // Their headers; the payload of what was free is not kept.
  for (size_t at = offset; at < offset + found.size;) {
    Found block;
    if (auto status = Read(at, &block); !status.ok()) return status;
    if (auto status = Protect(at, sizeof(Block)); !status.ok()) return status;
    at += block.size;
  }
  const size_t begin = offset + lead;
  size_t end = begin + need;
  const size_t rest = offset + found.size - end;
  if (rest < kMinBlock) end += rest;
  if (auto status = SetNext(end < heap_.size() ? end : 0); !status.ok()) {
    return status;
  }
  const auto write = [this](size_t at, uint64_t word, uint64_t transaction) {
    BlockAt(at).word.store(word, std::memory_order_relaxed);
    BlockAt(at).transaction.store(transaction, std::memory_order_relaxed);
  };
  if (rest >= kMinBlock) write(end, found.is_rest ? 0 : kMagic | rest, 0);
  if (lead != 0) write(offset, kMagic | lead, 0);
  write(begin, kMagic | (end - begin) | kUsed, current_);
  std::memset(heap_.data() + begin + sizeof(Block), 0,
              end - begin - sizeof(Block));
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Arena::Guard::Allocate(size_t bytes,
                                                size_t alignment) {
  if (bytes <= heap_.size()) {
    const size_t need =
        std::max(kMinBlock, RoundUp(sizeof(Block) + bytes, kUnit));
    uint64_t start = heap_header().next.load(std::memory_order_relaxed);
    if (start < kHeapHeaderSize || start >= heap_.size() ||
        start % kUnit != 0) {
      start = kHeapHeaderSize;
    }
    // From there to the end, and then from the beginning to there.
    size_t limit = heap_.size();
    for (size_t at = start; true;) {
      if (at >= limit) {
        if (limit == start || start == kHeapHeaderSize) break;
        limit = start;
        at = kHeapHeaderSize;
        continue;
      }
      Found found;
      if (auto status = Read(at, &found); !status.ok()) return status;
      if (IsUsable(found)) {
        size_t lead =
            RoundUp(at + sizeof(Block), alignment) - (at + sizeof(Block));
        while (lead != 0 && lead < kMinBlock) lead += alignment;
        const size_t alone = found.size;
        const bool for_good = undo_.Mark() == 0;
        if (auto status =
                Extend(at, for_good ? heap_.size() : lead + need, &found);
            !status.ok()) {
          return status;
        }
        if (for_good && found.size != alone) Join(at, found);
        if (lead + need <= found.size) {
          if (auto status = Take(at, found, lead, need); !status.ok()) {
            return status;
          }
          return at + lead + sizeof(Block);
        }
      }
      at += found.size;
    }
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "making a block of ", bytes, " bytes: an Arena of ", heap_.size(),
      " has no room for it; free others, or create it larger (what this Guard "
      "has freed is there for the next one)"));
}

absl::Status Arena::Guard::FreeBlock(uint64_t offset) {
  const uint64_t at = offset - sizeof(Block);
  Found found;
  if (offset < kHeapHeaderSize + sizeof(Block) || offset >= heap_.size() ||
      offset % kUnit != 0 || !Read(at, &found).ok() || !found.used) {
    return absl::InvalidArgumentError(
        absl::StrCat("freeing offset ", offset, " of an Arena of ",
                     heap_.size(), ": no block in use begins there"));
  }
  if (auto status = Protect(at, sizeof(Block)); !status.ok()) return status;
  Block& block = BlockAt(at);
  block.word.store(kMagic | found.size, std::memory_order_relaxed);
  block.transaction.store(current_, std::memory_order_relaxed);
  return absl::OkStatus();
}

std::byte* Arena::Guard::Find(uint64_t offset, size_t bytes,
                              size_t alignment) const {
  if (offset < kHeapHeaderSize + sizeof(Block) || offset % alignment != 0 ||
      offset > heap_.size() || bytes > heap_.size() - offset) {
    return nullptr;
  }
  return heap_.data() + offset;
}

absl::Status Arena::Guard::ProtectForChange(uint64_t block, uint64_t offset,
                                            size_t bytes, size_t alignment) {
  if (Find(offset, bytes, alignment) == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "changing ", bytes, " bytes at offset ", offset, " of an Arena of ",
        heap_.size(), ": they are not in it; the pointer is null or rubbish"));
  }
  return IsFresh(block) ? absl::OkStatus() : Protect(offset, bytes);
}

absl::Status Arena::Guard::CheckRoot(uint64_t layout) const {
  const HeapHeader& header = heap_header();
  const uint64_t actual = header.root_layout.load(std::memory_order_relaxed);
  if (actual == 0 || actual == layout) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the root of an Arena was set to another type: ask for the one it was "
      "set to");
}

uint64_t Arena::Guard::RootOffset() const {
  return heap_header().root.load(std::memory_order_relaxed);
}

absl::Status Arena::Guard::SetRoot(uint64_t offset, uint64_t layout) {
  HeapHeader& header = heap_header();
  if (auto status = Protect(0, offsetof(HeapHeader, next)); !status.ok()) {
    return status;
  }
  header.root.store(offset, std::memory_order_relaxed);
  header.root_layout.store(layout, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::StatusOr<Arena::Guard::Usage> Arena::Guard::usage() const {
  Usage usage;
  size_t in_a_row = 0;
  for (size_t at = kHeapHeaderSize; at < heap_.size();) {
    Found found;
    if (auto status = Read(at, &found); !status.ok()) return status;
    if (found.used) {
      ++usage.used_blocks;
      usage.used_bytes += found.size;
      in_a_row = 0;
    } else {
      in_a_row += found.size;
      usage.free_bytes += found.size;
      usage.largest_free_bytes = std::max(usage.largest_free_bytes, in_a_row);
    }
    at += found.size;
  }
  return usage;
}

}  // namespace ipc::shm
