// ShareableList is a list of fixed length in shared memory that Python shares:
// byte for byte the multiprocessing.shared_memory.ShareableList of Python 3.11.
//
// Example:
//
//   absl::StatusOr<ShareableList> list =
//       ShareableList::Create({"ready", 42, 2.5, true}, "status");
//   absl::Status status = list->Set(1, 43);
//
// and in Python, while the name is there:
//
//   l = shared_memory.ShareableList(name="status")
//   l[0], l[1]  # ('ready', 43)
//   l[0] = "done"
//
// What holds: each item has a slot of its own, whose size is that of the item
// the list was created with: 8 bytes for a number, bool or None; for a str or
// bytes the next multiple of 8 above its length. (Python counts a str in
// characters there and cuts what has no room in UTF-8; we count bytes, and it
// reads that as well.) Set may change the type; a str or bytes must fit the
// slot. A str is UTF-8. Neither a str nor bytes may end in a zero byte, since
// every reader, Python's too, takes such bytes for padding and drops them: Set
// and Create refuse what would be read differently.
//
// What does not: as in Python, there is no lock. A Set while another process or
// thread does Get or Set of the same slot may tear: Get then returns DataLoss,
// or a mixture of two items. Guard the list by a Mutex beside it, if more than
// one of them writes or a reader must never see that. Different slots do not
// disturb each other.
//
// Distrust: the table of slots is read and checked once, by Open, and from then
// on a private copy counts. All else that is read is copied and then checked
// against it. Whatever others write, the worst is DataLoss or a wrong item;
// only shrinking the file crashes, see shared_memory.h.
//
// Lifetime: as of SharedMemory, which memory() gives; copies share one mapping.
// Mind the trap of Python that shared_memory.h describes: a Python before 3.13
// removes at its end the name of a list that it merely opened.
//
// Thread safety: all members may be called from any thread, but see above.
#ifndef IPC_SHM_SHAREABLE_LIST_H_
#define IPC_SHM_SHAREABLE_LIST_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/shm/shared_memory.h"

namespace ipc::shm {

class ShareableList {
 public:
  using Access = SharedMemory::Access;

  // Python's bytes, where a std::string is its str.
  struct Bytes {
    std::string value;

    friend bool operator==(const Bytes&, const Bytes&) = default;
  };

  // None, bool, int, float, str, bytes. Items are equal if type and value are,
  // which is stricter than Python, where 1 == 1.0 == True.
  using Item =
      std::variant<std::monostate, bool, int64_t, double, std::string, Bytes>;

  // The longest str or bytes.
  static constexpr size_t kMaxItemBytes = 9999991;

  // A new list of `items` in new memory, complete before it has a name; see
  // SharedMemory::Create for `name` and errors. InvalidArgument also for an
  // item that no list can hold.
  static absl::StatusOr<ShareableList> Create(const std::vector<Item>& items,
                                              absl::string_view name = "");

  // The list that is there under `name`; see SharedMemory::Open for errors.
  // DataLoss if the memory is not a list: it has the wrong size, or a table of
  // slots that makes no sense; also if Python is still filling it.
  static absl::StatusOr<ShareableList> Open(absl::string_view name,
                                            Access access = Access::kReadWrite);

  size_t size() const { return state_->slots.size(); }

  // All that take a `position`: OutOfRange if it is not below size(). DataLoss
  // if what the slot holds is no item; a Set mends it.
  absl::StatusOr<Item> Get(size_t position) const;
  // InvalidArgument if the slot is too small for `item` or no list can hold it,
  // and PermissionDenied if mapped for kRead; the slot is then unchanged.
  absl::Status Set(size_t position, const Item& item) const;
  // The item's format in terms of Python's module struct: "q", "d", "xxxxxxx?"
  // (bool), "xxxxxx?x" (None), or as "16s" a str or bytes in a slot of 16.
  absl::StatusOr<std::string> format(size_t position) const;

  // All items, one Get after the other. DataLoss, which names the slot, if one
  // of them is.
  absl::StatusOr<std::vector<Item>> ToVector() const;
  // How many items equal `item`. DataLoss as of ToVector.
  absl::StatusOr<size_t> Count(const Item& item) const;
  // The position of the first item that equals `item`. NotFound if none does;
  // DataLoss if a slot before it is no item.
  absl::StatusOr<size_t> Index(const Item& item) const;

  // Where the list lies, for its name and to unlink it.
  const SharedMemory& memory() const { return state_->memory; }

 private:
  // Where a slot lies, in bytes from the start of the memory.
  struct Slot {
    size_t offset;
    size_t size;
  };
  struct State {
    SharedMemory memory;
    std::vector<Slot> slots;
    size_t formats;  // 8 bytes for each item, from here
    size_t codes;    // 1 byte for each item, from here
  };

  explicit ShareableList(std::shared_ptr<const State> state)
      : state_(std::move(state)) {}

  absl::Status CheckPosition(size_t position) const;
  // The name of a slot for messages.
  std::string Describe(size_t position) const;

  std::shared_ptr<const State> state_;
};

}  // namespace ipc::shm

#endif  // IPC_SHM_SHAREABLE_LIST_H_
