#include "ipc/shm/shareable_list.h"

#include <atomic>
#include <charconv>
#include <cstring>
#include <system_error>
#include <type_traits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ipc/base/posix_error.h"

namespace ipc::shm {
namespace {

using Bytes = ShareableList::Bytes;
using Item = ShareableList::Item;

// The layout, all numbers in the order of bytes of the machine:
//   int64              how many items, n
//   int64[n + 1]       where each slot begins, and the last one ends, counted
//                      from the end of this table
//   ...                the slots
//   char[n][8]         the format of each item, padded with zeros
//   int8[n]            the Code of each item
constexpr size_t kWord = 8;
// What a slot of the least size takes, its word in the table included.
constexpr size_t kMinBytesPerItem = kWord + kWord + kWord + 1;
// The most that "%ds" can say in a word.
constexpr size_t kMaxSlot = ShareableList::kMaxItemBytes + 1;
static_assert(kMaxSlot % kWord == 0 && kMaxSlot + kWord > 9999999);

constexpr size_t TableEnd(size_t items) { return (items + 2) * kWord; }

// How an item is made from the bytes in its slot.
enum class Code : int8_t {
  kNumber = 0,  // and bool
  kStr = 1,
  kBytes = 2,
  kNone = 3,
};

constexpr absl::string_view kIntFormat = "q";
constexpr absl::string_view kFloatFormat = "d";
constexpr absl::string_view kBoolFormat = "xxxxxxx?";
constexpr absl::string_view kNoneFormat = "xxxxxx?x";
constexpr size_t kBoolByte = 7;

// A private copy of what others may be changing.
template <typename T>
T Read(const std::byte* from) {
  static_assert(std::is_trivially_copyable_v<T>);
  T copy;
  std::memcpy(&copy, from, sizeof(copy));
  // Or else the compiler might read it again after it has been checked.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return copy;
}

std::string ReadString(const std::byte* from, size_t size) {
  std::string copy(reinterpret_cast<const char*>(from), size);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return copy;
}

std::string WithoutPadding(std::string text) {
  text.resize(text.find_last_not_of('\0') + 1);  // npos + 1 is 0
  return text;
}

// Table 3-7 of the Unicode standard: no overlong form, no surrogate, and
// nothing above U+10FFFF, just as Python's decoder has it.
bool IsUtf8(absl::string_view text) {
  const auto is_in = [](char c, int low, int high) {
    const auto byte = static_cast<unsigned char>(c);
    return low <= byte && byte <= high;
  };
  while (!text.empty()) {
    const auto lead = static_cast<unsigned char>(text[0]);
    size_t length = 1;
    int low = 0x80;  // of the second byte
    int high = 0xbf;
    if (lead >= 0x80) {
      if (lead < 0xc2 || lead > 0xf4) return false;
      length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
      if (text.size() < length || !is_in(text[1], low, high)) return false;
      for (size_t i = 2; i < length; ++i) {
        if (!is_in(text[i], 0x80, 0xbf)) return false;
      }
    }
    text.remove_prefix(length);
  }
  return true;
}

// How many bytes the slot of an item made with `item` has.
size_t SlotSize(const Item& item) {
  size_t length = 0;
  if (const auto* text = std::get_if<std::string>(&item)) length = text->size();
  if (const auto* bytes = std::get_if<Bytes>(&item)) {
    length = bytes->value.size();
  }
  return kWord * (length / kWord + 1);
}

// What memory holds of an item. The views are of the item.
struct Encoded {
  Code code = Code::kNone;
  std::string format;
  bool is_text = false;
  absl::string_view text;  // if is_text; zeros follow it
  char word[kWord] = {};   // otherwise
};

absl::StatusOr<Encoded> Encode(const Item& item, size_t slot_size) {
  Encoded result;
  if (std::holds_alternative<std::monostate>(item)) {
    result.code = Code::kNone;
    result.format = std::string(kNoneFormat);
    return result;
  }
  result.code = Code::kNumber;
  if (const bool* truth = std::get_if<bool>(&item)) {
    result.format = std::string(kBoolFormat);
    result.word[kBoolByte] = *truth ? 1 : 0;
    return result;
  }
  if (const int64_t* number = std::get_if<int64_t>(&item)) {
    result.format = std::string(kIntFormat);
    std::memcpy(result.word, number, sizeof(*number));
    return result;
  }
  if (const double* number = std::get_if<double>(&item)) {
    result.format = std::string(kFloatFormat);
    std::memcpy(result.word, number, sizeof(*number));
    return result;
  }
  result.is_text = true;
  absl::string_view type = "str";
  if (const std::string* text = std::get_if<std::string>(&item)) {
    result.code = Code::kStr;
    result.text = *text;
    if (!IsUtf8(*text)) {
      return absl::InvalidArgumentError(
          "a str that is not UTF-8, which Python cannot read: pass it as "
          "ShareableList::Bytes");
    }
  } else {
    type = "bytes";
    result.code = Code::kBytes;
    result.text = std::get<Bytes>(item).value;
  }
  if (!result.text.empty() && result.text.back() == '\0') {
    return absl::InvalidArgumentError(
        absl::StrCat(type,
                     " that ends in a zero byte, which readers would "
                     "drop: append a byte that is not zero"));
  }
  if (result.text.size() > ShareableList::kMaxItemBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        type, " of ", result.text.size(), " bytes, where ",
        ShareableList::kMaxItemBytes, " is the most: use a SharedMemory"));
  }
  if (result.text.size() > slot_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        type, " of ", result.text.size(), " bytes does not fit the slot of ",
        slot_size, ": create the list with a longer item there"));
  }
  result.format = absl::StrCat(slot_size, "s");
  return result;
}

// In Python's order. REQUIRES: the slot is as large as Encode was told.
void Write(const Encoded& item, std::byte* slot, size_t slot_size,
           std::byte* format, std::byte* code) {
  std::string padded = item.format;
  padded.resize(kWord);
  std::memcpy(format, padded.data(), padded.size());
  std::memcpy(code, &item.code, sizeof(item.code));
  if (!item.is_text) {
    std::memcpy(slot, item.word, sizeof(item.word));
    return;
  }
  if (!item.text.empty()) {
    std::memcpy(slot, item.text.data(), item.text.size());
  }
  std::memset(slot + item.text.size(), 0, slot_size - item.text.size());
}

// What a format says: a type, and how many bytes of the slot are the item.
struct Format {
  enum Type { kInt, kFloat, kBool, kNone, kText } type;
  size_t length;
};

// False if it is none, or its item would leave a slot of `slot_size`.
bool ParseFormat(absl::string_view text, size_t slot_size, Format* format) {
  *format = {Format::kInt, kWord};
  if (text == kIntFormat) return true;
  format->type = Format::kFloat;
  if (text == kFloatFormat) return true;
  format->type = Format::kBool;
  if (text == kBoolFormat) return true;
  format->type = Format::kNone;
  if (text == kNoneFormat) return true;
  format->type = Format::kText;
  if (text.size() < 2 || text.back() != 's') return false;
  const char* const end = text.data() + text.size() - 1;
  const auto [rest, error] = std::from_chars(text.data(), end, format->length);
  return error == std::errc() && rest == end && format->length <= slot_size;
}

absl::Status NotAList(const SharedMemory& memory, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(
      "shared memory ", memory.name(), " of ", memory.size(),
      " bytes is not a ShareableList: ", what,
      "; open it again if its creator is still filling it, or create it anew"));
}

}  // namespace

absl::StatusOr<ShareableList> ShareableList::Create(
    const std::vector<Item>& items, absl::string_view name) {
  std::vector<Encoded> encoded;
  std::vector<Slot> slots;
  encoded.reserve(items.size());
  slots.reserve(items.size());
  size_t end = TableEnd(items.size());
  for (const Item& item : items) {
    const Slot slot = {.offset = end, .size = SlotSize(item)};
    absl::StatusOr<Encoded> value = Encode(item, slot.size);
    if (!value.ok()) {
      return Annotate(value.status(),
                      absl::StrCat("creating ShareableList \"", name,
                                   "\", slot ", slots.size()));
    }
    encoded.push_back(*std::move(value));
    slots.push_back(slot);
    end += slot.size;
  }
  const size_t formats = end;
  const size_t codes = formats + items.size() * kWord;
  const size_t total = codes + items.size();

  absl::StatusOr<SharedMemory> memory =
      SharedMemory::Create(name, total, [&](absl::Span<std::byte> bytes) {
        std::byte* to = bytes.data();
        const auto put = [&to](uint64_t word) {
          std::memcpy(to, &word, sizeof(word));
          to += sizeof(word);
        };
        const size_t start = TableEnd(slots.size());
        put(slots.size());
        for (const Slot& slot : slots) put(slot.offset - start);
        put(formats - start);
        for (size_t i = 0; i < slots.size(); ++i) {
          Write(encoded[i], &bytes[slots[i].offset], slots[i].size,
                &bytes[formats + i * kWord], &bytes[codes + i]);
        }
      });
  if (!memory.ok()) return memory.status();
  return ShareableList(std::make_shared<const State>(State{
      .memory = *std::move(memory),
      .slots = std::move(slots),
      .formats = formats,
      .codes = codes,
  }));
}

absl::StatusOr<ShareableList> ShareableList::Open(absl::string_view name,
                                                  Access access) {
  absl::StatusOr<SharedMemory> memory = SharedMemory::Open(name, access);
  if (!memory.ok()) return memory.status();
  const size_t total = memory->size();
  const std::byte* const base = memory->bytes().data();
  if (total < TableEnd(0)) {
    return NotAList(*memory,
                    absl::StrCat("even an empty one has ", TableEnd(0)));
  }
  const int64_t claimed = Read<int64_t>(base);
  // Keeps all sums below from overflowing, and the memory we take for the table
  // within the size of the file.
  if (claimed < 0 || static_cast<uint64_t>(claimed) >
                         (total - TableEnd(0)) / kMinBytesPerItem) {
    return NotAList(*memory,
                    absl::StrCat("it claims to have ", claimed, " items"));
  }
  const auto count = static_cast<size_t>(claimed);
  const size_t start = TableEnd(count);
  const size_t room = total - start - count * (kWord + 1);  // of the slots
  std::vector<Slot> slots;
  slots.reserve(count);
  size_t offset = 0;
  for (size_t i = 0; i <= count; ++i) {
    const int64_t next = Read<int64_t>(base + (i + 1) * kWord);
    const bool first = i == 0;
    if (next < 0 || static_cast<uint64_t>(next) > room || next % kWord != 0 ||
        (first ? next != 0
               : static_cast<size_t>(next) < offset + kWord ||
                     static_cast<size_t>(next) - offset > kMaxSlot)) {
      return NotAList(*memory,
                      absl::StrCat("boundary ", i, " of its slots is at ", next,
                                   ", after ", offset, " and within ", room));
    }
    if (!first) {
      slots.push_back({.offset = start + offset,
                       .size = static_cast<size_t>(next) - offset});
    }
    offset = static_cast<size_t>(next);
  }
  if (offset != room) {
    return NotAList(*memory, absl::StrCat("its ", count, " slots fill ", offset,
                                          " bytes of ", room));
  }
  return ShareableList(std::make_shared<const State>(State{
      .memory = *std::move(memory),
      .slots = std::move(slots),
      .formats = start + room,
      .codes = start + room + count * kWord,
  }));
}

absl::Status ShareableList::CheckPosition(size_t position) const {
  if (position < size()) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("ShareableList ", memory().name(),
                                            " has ", size(), " items, no [",
                                            position, "]"));
}

std::string ShareableList::Describe(size_t position) const {
  return absl::StrCat("ShareableList ", memory().name(), ", slot ", position);
}

absl::StatusOr<std::string> ShareableList::format(size_t position) const {
  if (absl::Status status = CheckPosition(position); !status.ok()) {
    return status;
  }
  std::string text = WithoutPadding(
      ReadString(&memory().bytes()[state_->formats + position * kWord], kWord));
  const size_t slot_size = state_->slots[position].size;
  if (Format parsed; !ParseFormat(text, slot_size, &parsed)) {
    return absl::DataLossError(absl::StrCat(
        Describe(position), " of ", slot_size, " bytes has format \"",
        absl::CHexEscape(text),
        "\", which is none or does not fit: it is corrupt or being set; set "
        "it again"));
  }
  return text;
}

absl::StatusOr<Item> ShareableList::Get(size_t position) const {
  const absl::StatusOr<std::string> text = format(position);
  if (!text.ok()) return text.status();
  const Slot slot = state_->slots[position];
  Format format;
  ParseFormat(*text, slot.size, &format);
  const absl::Span<const std::byte> bytes = memory().bytes();
  const auto code = Read<Code>(&bytes[state_->codes + position]);
  const std::byte* const data = &bytes[slot.offset];

  const bool is_text = code == Code::kStr || code == Code::kBytes;
  const bool is_none = code == Code::kNone;
  if ((!is_text && !is_none && code != Code::kNumber) ||
      is_text != (format.type == Format::kText) ||
      is_none != (format.type == Format::kNone)) {
    return absl::DataLossError(
        absl::StrCat(Describe(position), " has code ", static_cast<int>(code),
                     " with format \"", *text,
                     "\": it is corrupt or being set; set it again"));
  }
  switch (format.type) {
    case Format::kNone:
      return Item(std::monostate());
    case Format::kInt:
      return Item(Read<int64_t>(data));
    case Format::kFloat:
      return Item(Read<double>(data));
    case Format::kBool:
      return Item(Read<char>(data + kBoolByte) != 0);
    case Format::kText:
      break;
  }
  std::string value = WithoutPadding(ReadString(data, format.length));
  if (code == Code::kBytes) return Item(Bytes{std::move(value)});
  if (!IsUtf8(value)) {
    return absl::DataLossError(absl::StrCat(
        Describe(position), " of ", slot.size,
        " bytes holds a str that is not UTF-8: it is corrupt or being set, or "
        "Python has cut it to fit; set it again"));
  }
  return Item(std::move(value));
}

absl::Status ShareableList::Set(size_t position, const Item& item) const {
  if (absl::Status status = CheckPosition(position); !status.ok()) {
    return status;
  }
  if (!memory().writable()) {
    return absl::PermissionDeniedError(
        absl::StrCat(Describe(position),
                     ", is mapped for reading: open the list for kReadWrite"));
  }
  const Slot slot = state_->slots[position];
  const absl::StatusOr<Encoded> encoded = Encode(item, slot.size);
  if (!encoded.ok()) return Annotate(encoded.status(), Describe(position));
  const absl::Span<std::byte> bytes = memory().bytes();
  Write(*encoded, &bytes[slot.offset], slot.size,
        &bytes[state_->formats + position * kWord],
        &bytes[state_->codes + position]);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Item>> ShareableList::ToVector() const {
  std::vector<Item> items;
  items.reserve(size());
  for (size_t i = 0; i < size(); ++i) {
    absl::StatusOr<Item> item = Get(i);
    if (!item.ok()) return item.status();
    items.push_back(*std::move(item));
  }
  return items;
}

absl::StatusOr<size_t> ShareableList::Count(const Item& item) const {
  size_t count = 0;
  for (size_t i = 0; i < size(); ++i) {
    const absl::StatusOr<Item> other = Get(i);
    if (!other.ok()) return other.status();
    if (*other == item) ++count;
  }
  return count;
}

absl::StatusOr<size_t> ShareableList::Index(const Item& item) const {
  for (size_t i = 0; i < size(); ++i) {
    const absl::StatusOr<Item> other = Get(i);
    if (!other.ok()) return other.status();
    if (*other == item) return i;
  }
  return absl::NotFoundError(
      absl::StrCat("ShareableList ", memory().name(), " has no such item"));
}

}  // namespace ipc::shm
