#include "ipc/shm/shareable_list.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/shared_memory.h"
#include "tests/ipc/shm/memory_names.h"
#include "tests/ipc/shm/python_peer.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::_;
using ::testing::AllOf;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Bytes = ShareableList::Bytes;
using Item = ShareableList::Item;
constexpr std::monostate kNone;

std::string Repeat(absl::string_view text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) absl::StrAppend(&result, text);
  return result;
}

// As ITEMS in python_peer.py.
std::vector<Item> AllKinds() {
  return {"howdy",
          Bytes{"HoWdY"},
          -273.154,
          100,
          kNone,
          true,
          42,
          "",
          Bytes{""},
          Bytes{std::string("a\0b", 3)},
          std::string("a\0b", 3),
          false,
          std::numeric_limits<int64_t>::min(),
          std::numeric_limits<int64_t>::max(),
          std::numeric_limits<double>::infinity(),
          -0.0,
          "\u00e4\u20ac\U0001f600!!!!!",
          "12345678",
          Bytes{std::string(100, '\xff')}};
}

class ShareableListTest : public ::testing::Test {
 protected:
  // A list under a new name, which must be possible.
  ShareableList Create(const std::vector<Item>& items) {
    absl::StatusOr<ShareableList> list =
        ShareableList::Create(items, names_.New());
    EXPECT_THAT(list, IsOk());
    return *std::move(list);
  }

  // Memory that holds `words`.
  std::string Forge(const std::vector<int64_t>& words, size_t more = 0) {
    std::string name = names_.New();
    const absl::StatusOr<SharedMemory> memory =
        SharedMemory::Create(name, words.size() * sizeof(int64_t) + more);
    EXPECT_THAT(memory, IsOk());
    std::copy(words.begin(), words.end(),
              reinterpret_cast<int64_t*>(memory->bytes().data()));
    return name;
  }

  static std::string Formats(const ShareableList& list) {
    std::string all;
    for (size_t i = 0; i < list.size(); ++i) {
      const absl::StatusOr<std::string> format = list.format(i);
      EXPECT_THAT(format, IsOk());
      absl::StrAppend(&all, format.value_or("?"));
    }
    return all;
  }

  MemoryNames names_;
};

// CPython: test_shared_memory_ShareableList_basics
TEST_F(ShareableListTest, SharedMemoryShareableListBasics) {
  const std::vector<Item> items = {"howdy", Bytes{"HoWdY"}, -273.154, 100,
                                   kNone,   true,           42};
  const ShareableList sl = Create(items);

  EXPECT_THAT(sl.Get(7), StatusIs(absl::StatusCode::kOutOfRange,
                                  AllOf(HasSubstr(sl.memory().name()),
                                        HasSubstr("7 items"))));
  EXPECT_THAT(sl.Set(7, 2), StatusIs(absl::StatusCode::kOutOfRange, _));
  EXPECT_THAT(sl.format(7), StatusIs(absl::StatusCode::kOutOfRange, _));
  EXPECT_THAT(sl.Get(SIZE_MAX), StatusIs(absl::StatusCode::kOutOfRange, _));

  EXPECT_THAT(sl.Set(0, "howdy"), IsOk());
  EXPECT_EQ(Formats(sl), "8s8sdqxxxxxx?xxxxxxxx?q");
  EXPECT_EQ(sl.size(), 7u);

  EXPECT_THAT(sl.Index("100"), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(sl.Index(100), IsOkAndHolds(3u));

  EXPECT_THAT(sl.Get(0), IsOkAndHolds(Item("howdy")));
  EXPECT_THAT(sl.Get(5), IsOkAndHolds(Item(true)));
  EXPECT_THAT(sl.ToVector(), IsOkAndHolds(items));

  EXPECT_THAT(sl.Set(3, 42), IsOk());
  EXPECT_THAT(sl.Get(3), IsOkAndHolds(Item(42)));
  EXPECT_THAT(sl.Set(4, "some"), IsOk());  // another type
  EXPECT_THAT(sl.Get(4), IsOkAndHolds(Item("some")));
  EXPECT_EQ(Formats(sl), "8s8sdq8sxxxxxxx?q");
  EXPECT_THAT(
      sl.Set(4, "far too many"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr(sl.memory().name()), HasSubstr("slot 4"),
                     HasSubstr("slot of 8"), HasSubstr("str of 12 bytes"))));
  EXPECT_THAT(sl.Get(4), IsOkAndHolds(Item("some")));
  EXPECT_THAT(sl.Set(0, "encod\u00e9s"), IsOk());  // exactly 8 bytes
  EXPECT_THAT(sl.Get(0), IsOkAndHolds(Item("encod\u00e9s")));
  EXPECT_THAT(sl.Get(1), IsOkAndHolds(Item(Bytes{"HoWdY"})));
  EXPECT_THAT(sl.Set(0, "encod\u00e9es"),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(sl.Get(0), IsOkAndHolds(Item("encod\u00e9s")));
  EXPECT_THAT(sl.Set(1, Bytes{"123456789"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("bytes of 9 bytes")));
  EXPECT_THAT(sl.Get(1), IsOkAndHolds(Item(Bytes{"HoWdY"})));

  EXPECT_THAT(sl.Count(42), IsOkAndHolds(2u));
  EXPECT_THAT(sl.Count(Bytes{"HoWdY"}), IsOkAndHolds(1u));
  EXPECT_THAT(sl.Count(Bytes{"adios"}), IsOkAndHolds(0u));
  EXPECT_THAT(sl.Count("HoWdY"), IsOkAndHolds(0u)) << "str are no bytes";

  // A duplicate.
  const ShareableList sl_copy = Create(*sl.ToVector());
  EXPECT_THAT(sl_copy.ToVector(), IsOkAndHolds(*sl.ToVector()));
  EXPECT_THAT(sl_copy.Set(6, 77), IsOk());
  EXPECT_THAT(sl_copy.Get(6), IsOkAndHolds(Item(77)));
  EXPECT_THAT(sl.Get(6), IsOkAndHolds(Item(42)));

  // A second handle on the same.
  const absl::StatusOr<ShareableList> sl_tethered =
      ShareableList::Open(sl.memory().name());
  ASSERT_THAT(sl_tethered, IsOk());
  EXPECT_EQ(sl_tethered->memory().name(), sl.memory().name());
  EXPECT_THAT(sl_tethered->Set(6, 880), IsOk());
  EXPECT_THAT(sl.Get(6), IsOkAndHolds(Item(880)));

  // An empty list.
  const ShareableList empty_sl = Create({});
  EXPECT_EQ(empty_sl.size(), 0u);
  EXPECT_THAT(empty_sl.Count("any"), IsOkAndHolds(0u));
  EXPECT_THAT(empty_sl.Index(kNone), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(ShareableList::Open(empty_sl.memory().name())->ToVector(),
              IsOkAndHolds(IsEmpty()));
}

// CPython: test_shared_memory_ShareableList_pickling: it is pickled as its name
TEST_F(ShareableListTest, SharedMemoryShareableListPickling) {
  std::vector<Item> range;
  for (int64_t i = 0; i < 10; ++i) range.emplace_back(i);
  const ShareableList sl = Create(range);
  const ShareableList unpickled = *ShareableList::Open(sl.memory().name());
  EXPECT_THAT(unpickled.Get(9), IsOkAndHolds(Item(9)));
  EXPECT_THAT(unpickled.Set(4, "changed"), IsOk());
  EXPECT_THAT(sl.Get(4), IsOkAndHolds(Item("changed")));
  EXPECT_THAT(sl.Set(3, "newvalue"), IsOk());
  EXPECT_THAT(unpickled.Get(3), IsOkAndHolds(Item("newvalue")));
}

// CPython: test_shared_memory_ShareableList_pickling_dead_object
TEST_F(ShareableListTest, SharedMemoryShareableListPicklingDeadObject) {
  const ShareableList sl = Create({1, 2});
  EXPECT_THAT(sl.memory().Unlink(), IsOk());
  EXPECT_THAT(ShareableList::Open(sl.memory().name()),
              StatusIs(absl::StatusCode::kNotFound, _));
}

// A real Python and we.

// What each side sets, and the other finds then.
const std::vector<Item>& Changed() {
  static const auto* const kChanged = new std::vector<Item>{
      "encod\u00e9s", kNone, 1, 0.5, "some", Bytes{"bytes"}, false};
  return *kChanged;
}

TEST_F(ShareableListTest, PythonReadsAndSetsOurs) {
  std::vector<Item> ours = AllKinds();
  ours.emplace_back(Repeat("\u00e9", 7));  // which Python itself would cut
  const ShareableList list = Create(ours);
  PythonPeer python("list_read", {list.memory().name()});
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
  EXPECT_EQ(python.complaint(), "");
  EXPECT_FALSE(list.memory().unlinked());
  std::vector<Item> items = *list.ToVector();
  items.resize(Changed().size());
  EXPECT_THAT(items, ElementsAreArray(Changed()));
}

TEST_F(ShareableListTest, WeReadAndSetPythons) {
  const std::string name = names_.New();
  PythonPeer python("list_create", {name});
  ASSERT_EQ(python.Hear(), "ready");
  const absl::StatusOr<ShareableList> list = ShareableList::Open(name);
  ASSERT_THAT(list, IsOk());
  EXPECT_THAT(list->ToVector(), IsOkAndHolds(ElementsAreArray(AllKinds())));
  // What both create of the same items is the same, byte for byte.
  const ShareableList ours = Create(AllKinds());
  EXPECT_THAT(list->memory().bytes(), ElementsAreArray(ours.memory().bytes()));
  for (size_t i = 0; i < Changed().size(); ++i) {
    EXPECT_THAT(list->Set(i, Changed()[i]), IsOk());
  }
  python.Tell();
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
  EXPECT_EQ(python.complaint(), "");
  EXPECT_TRUE(list->memory().unlinked());
}

TEST_F(ShareableListTest, EmptyListsInBothDirections) {
  const std::string theirs = names_.New();
  const ShareableList ours = Create({});
  PythonPeer python("list_empty", {theirs, ours.memory().name()});
  ASSERT_EQ(python.Hear(), "ready");
  const absl::StatusOr<ShareableList> list = ShareableList::Open(theirs);
  ASSERT_THAT(list, IsOk());
  EXPECT_EQ(list->size(), 0u);
  EXPECT_THAT(list->memory().bytes(), SizeIs(ours.memory().size()));
  python.Tell();
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
}

TEST_F(ShareableListTest, WhatPythonHasCutIsDataLoss) {
  const std::string name = names_.New();
  PythonPeer python("list_cut", {name});
  ASSERT_EQ(python.Hear(), "ready");
  const absl::StatusOr<ShareableList> list = ShareableList::Open(name);
  ASSERT_THAT(list, IsOk());
  EXPECT_THAT(list->Get(0), IsOkAndHolds(Item(Repeat("\u00e9", 4))));
  EXPECT_THAT(list->Get(1), StatusIs(absl::StatusCode::kDataLoss,
                                     AllOf(HasSubstr(name), HasSubstr("slot 1"),
                                           HasSubstr("UTF-8"))));
  EXPECT_THAT(list->ToVector(), StatusIs(absl::StatusCode::kDataLoss, _));
  EXPECT_THAT(list->Count(1), StatusIs(absl::StatusCode::kDataLoss, _));
  EXPECT_THAT(list->Set(1, "whole"), IsOk());
  EXPECT_THAT(list->Get(1), IsOkAndHolds(Item("whole")));
  python.Tell();
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
}

TEST_F(ShareableListTest, APythonThatOnlyAttachedRemovesTheName) {
  const ShareableList list = Create({"unseen"});
  PythonPeer python("list_attach_and_end", {list.memory().name()});
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
  EXPECT_THAT(list.Get(0), IsOkAndHolds(Item("seen"))) << "who has it keeps it";
  if (!list.memory().unlinked()) {
    GTEST_SKIP() << "this Python has no such trap";
  }
  EXPECT_THAT(python.complaint(), HasSubstr("leaked shared_memory"));
  EXPECT_THAT(ShareableList::Open(list.memory().name()),
              StatusIs(absl::StatusCode::kNotFound, _));
}

// Items.

TEST_F(ShareableListTest, HasTheLayoutOfPython) {
  const ShareableList list = Create({7, "text", Bytes{"12345678"}, kNone});
  std::string expected;
  for (const char word : {4, 0, 8, 16, 32, 40, 7}) {
    expected.append({word, 0, 0, 0, 0, 0, 0, 0});
  }
  expected.append("text\0\0\0\0", 8);
  expected.append("12345678\0\0\0\0\0\0\0\0", 16);
  expected.append(8, '\0');
  expected.append("q\0\0\0\0\0\0\0", 8);
  expected.append("8s\0\0\0\0\0\0", 8);
  expected.append("16s\0\0\0\0\0", 8);
  expected.append("xxxxxx?x");
  expected.append({0, 1, 2, 3});
  if constexpr (std::endian::native != std::endian::little) GTEST_SKIP();
  EXPECT_EQ(
      std::string(reinterpret_cast<const char*>(list.memory().bytes().data()),
                  list.memory().size()),
      expected);
}

TEST_F(ShareableListTest, EveryTypeMayFollowEveryOther) {
  const ShareableList list = Create({"12345678abcdefg"});
  EXPECT_THAT(list.format(0), IsOkAndHolds("16s"));
  const std::vector<Item> items = {"12345678abcdefgh",
                                   Bytes{"12345678abcdefgh"},
                                   1,
                                   2.5,
                                   true,
                                   false,
                                   kNone,
                                   "",
                                   Bytes{""}};
  for (const Item& from : items) {
    for (const Item& to : items) {
      ASSERT_THAT(list.Set(0, from), IsOk());
      ASSERT_THAT(list.Set(0, to), IsOk());
      ASSERT_THAT(list.Get(0), IsOkAndHolds(to));
    }
  }
}

TEST_F(ShareableListTest, ItemsOfOtherTypesDiffer) {
  const ShareableList list = Create({1, 1.0, true, "1", Bytes{"1"}});
  for (size_t i = 0; i < list.size(); ++i) {
    EXPECT_THAT(list.Count(*list.Get(i)), IsOkAndHolds(1u));
    EXPECT_THAT(list.Index(*list.Get(i)), IsOkAndHolds(i));
  }
}

TEST_F(ShareableListTest, RefusesWhatWouldBeReadDifferently) {
  const std::vector<std::string> not_utf8 = {
      "\x80",
      "\xc3",
      "\xc0\x80",
      "\xc1\xbf",
      "\xe0\x9f\xbf",
      "\xed\xa0\x80",  // a surrogate
      "\xe2\x82",
      "\xf0\x8f\xbf\xbf",
      "\xf0\x9f\x98",
      "\xf4\x90\x80\x80",
      "\xf5\x80\x80\x80",
      "a\xff",
      "\xc3\xc3",
      "\xe2\x82\x28",
  };
  const ShareableList list = Create({"................", 5});
  const std::string name = names_.New();
  for (const std::string& text : not_utf8) {
    EXPECT_THAT(list.Set(0, text),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("slot 0"), HasSubstr("UTF-8"))));
    EXPECT_THAT(list.Set(0, Bytes{text}), IsOk());
    EXPECT_THAT(list.Get(0), IsOkAndHolds(Item(Bytes{text})));
  }
  for (const Item& item :
       {Item(std::string("a\0", 2)), Item(Bytes{std::string(1, '\0')})}) {
    EXPECT_THAT(list.Set(1, item), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("zero byte")));
    EXPECT_THAT(ShareableList::Create({item}, name),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(name), HasSubstr("slot 0"))));
  }
  EXPECT_THAT(list.Get(1), IsOkAndHolds(Item(5)));
  EXPECT_FALSE(MemoryNames::Exists(name));
  for (const char* text : {"\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff",
                           "\ue000", "\uffff", "\U00010000", "\U0010ffff"}) {
    EXPECT_THAT(list.Set(0, text), IsOk());
    EXPECT_THAT(list.Get(0), IsOkAndHolds(Item(text)));
  }
}

TEST_F(ShareableListTest, TheLongestItem) {
  const std::string longest(ShareableList::kMaxItemBytes, 'x');
  const ShareableList list = Create({longest});
  EXPECT_THAT(list.format(0), IsOkAndHolds("9999992s"));
  EXPECT_TRUE(*list.Get(0) == Item(longest));
  EXPECT_TRUE(*ShareableList::Open(list.memory().name())->Get(0) ==
              Item(longest));
  const Item more = longest + "x";
  EXPECT_THAT(list.Set(0, more),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(
      ShareableList::Create({more}, names_.New()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("SharedMemory")));
}

TEST_F(ShareableListTest, RandomAndTakenNames) {
  const absl::StatusOr<ShareableList> list = ShareableList::Create({1});
  ASSERT_THAT(list, IsOk());
  names_.Adopt(list->memory().name());
  EXPECT_THAT(ShareableList::Open(list->memory().name()), IsOk());
  EXPECT_THAT(ShareableList::Create({1}, list->memory().name()),
              StatusIs(absl::StatusCode::kAlreadyExists, _));
  EXPECT_THAT(ShareableList::Create({1}, "a/b"),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(ShareableListTest, ForReading) {
  const ShareableList list = Create({1});
  const absl::StatusOr<ShareableList> reader =
      ShareableList::Open(list.memory().name(), ShareableList::Access::kRead);
  ASSERT_THAT(reader, IsOk());
  EXPECT_THAT(reader->Set(0, 2),
              StatusIs(absl::StatusCode::kPermissionDenied, _));
  EXPECT_THAT(list.Set(0, 3), IsOk());
  EXPECT_THAT(reader->Get(0), IsOkAndHolds(Item(3)));
}

// Memory that is no list.

TEST_F(ShareableListTest, ATableThatMakesNoSenseIsDataLoss) {
  // The rest of a list of one item: slot, format, code.
  constexpr size_t kRest = 8 + 8 + 1;
  EXPECT_THAT(ShareableList::Open(Forge({1, 0, 8}, kRest)), IsOk());
  const int64_t kMax = std::numeric_limits<int64_t>::max();
  const int64_t kMin = std::numeric_limits<int64_t>::min();
  const std::vector<std::vector<int64_t>> tables = {
      {-1, 0, 8},
      {0, 0, 8},
      {2, 0, 8},
      {kMax, 0, 8},
      {kMin, 0, 8},
      {1, 8, 8},
      {1, -8, 8},
      {1, kMin, 8},
      {1, 0, 0},
      {1, 0, -8},
      {1, 0, 7},
      {1, 0, 9},
      {1, 0, 16},
      {1, 0, kMax},
      {1, 0, kMin},
      {1, kMax, 0},
      {1, 8, 16},
      {1, 0, 1024},
      {int64_t{1} << 61, 0, 8},
      {int64_t{1} << 32, 0, 8},
  };
  for (const std::vector<int64_t>& table : tables) {
    const std::string name = Forge(table, kRest);
    EXPECT_THAT(ShareableList::Open(name),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(name)))
        << ::testing::PrintToString(table);
  }
  // Boundaries out of order; a slot longer than any format can say.
  EXPECT_THAT(ShareableList::Open(Forge({2, 0, 16, 8, 0, 0}, 18)),
              StatusIs(absl::StatusCode::kDataLoss, _));
  EXPECT_THAT(ShareableList::Open(Forge({1, 0, 10000000}, 10000000 + 8 + 1)),
              StatusIs(absl::StatusCode::kDataLoss, _));
}

TEST_F(ShareableListTest, AWrongSizeIsDataLoss) {
  EXPECT_THAT(ShareableList::Open(Forge({0})),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("16")));
  const ShareableList list = Create(AllKinds());
  const std::string& name = list.memory().name();
  const auto size = static_cast<off_t>(list.memory().size());
  for (off_t wrong = size + 10; wrong > 0; --wrong) {
    if (wrong == size) continue;
    // Not the list's own file, of which we have mapped it all.
    const std::string other = Forge({}, static_cast<size_t>(wrong));
    const SharedMemory memory = *SharedMemory::Open(other);
    std::memcpy(memory.bytes().data(), list.memory().bytes().data(),
                static_cast<size_t>(std::min(wrong, size)));
    EXPECT_THAT(ShareableList::Open(other),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(other)));
  }
  ASSERT_EQ(truncate(MemoryNames::Path(name).c_str(), 0), 0);
  EXPECT_THAT(ShareableList::Open(name),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(ShareableListTest, BadFormatsAndCodesAreDataLoss) {
  const ShareableList list = Create({"text", 5});
  const auto bytes = list.memory().bytes();
  std::byte* const format = &bytes[bytes.size() - 2 - 16];
  std::byte* const code = &bytes[bytes.size() - 2];
  const auto put_format = [format](std::string text) {
    text.resize(8);
    std::memcpy(format, text.data(), text.size());
  };
  const std::vector<std::string> bad_formats = {
      "",    "s",       "9s",       "16s",      "-1s",      "+1s",
      " 8s", "8s ",     "8 s",      "8x",       "99999999", "9999999s",
      "Q",   "xxxxxxx", "xxxxxx??", "\xff\xff", "x?",       {'8', 's', 0, 's'}};
  for (const std::string& text : bad_formats) {
    put_format(text);
    EXPECT_THAT(list.format(0),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("slot 0")))
        << text;
    EXPECT_THAT(list.Get(0), StatusIs(absl::StatusCode::kDataLoss, _)) << text;
  }
  const std::vector<std::pair<std::string, std::vector<int>>> codes_of_formats =
      {{"8s", {1, 2}}, {"3s", {1, 2}},    {"0s", {1, 2}},   {"q", {0}},
       {"d", {0}},     {"xxxxxxx?", {0}}, {"xxxxxx?x", {3}}};
  for (const auto& [text, good_codes] : codes_of_formats) {
    put_format(text);
    for (int i = -128; i < 128; ++i) {
      *code = static_cast<std::byte>(i);
      EXPECT_EQ(list.Get(0).status().code(),
                ::testing::Value(good_codes, ::testing::Contains(i))
                    ? absl::StatusCode::kOk
                    : absl::StatusCode::kDataLoss)
          << text << " " << i;
    }
  }
  EXPECT_THAT(list.Get(1), IsOkAndHolds(Item(5)));
  EXPECT_THAT(list.Set(0, "mended"), IsOk());
  EXPECT_THAT(list.Get(0), IsOkAndHolds(Item("mended")));
}

// Calls everything; what is wrong may only be DataLoss.
void Exercise(const ShareableList& list) {
  for (size_t i = 0; i < list.size(); ++i) {
    for (const absl::StatusCode code :
         {list.Get(i).status().code(), list.format(i).status().code()}) {
      ASSERT_TRUE(code == absl::StatusCode::kOk ||
                  code == absl::StatusCode::kDataLoss)
          << code;
    }
  }
  list.ToVector().status().IgnoreError();
  list.Count(42).status().IgnoreError();
  list.Index(42).status().IgnoreError();
  for (size_t i = 0; i < list.size(); ++i) {
    for (const Item& item : {Item("text"), Item(7), Item(Bytes{"bytes"})}) {
      ASSERT_THAT(list.Set(i, item), IsOk());
      ASSERT_THAT(list.Get(i), IsOkAndHolds(item));
    }
  }
}

TEST_F(ShareableListTest, RandomBytesNeverCrash) {
  const int32_t wanted = GTEST_FLAG_GET(random_seed);
  const unsigned seed = wanted != 0 ? static_cast<unsigned>(wanted)
                                    : std::random_device()() % 100000;
  SCOPED_TRACE(absl::StrCat("--gtest_random_seed=", seed));
  std::mt19937 random(seed);
  const ShareableList list = Create(AllKinds());
  const auto bytes = list.memory().bytes();
  const std::vector<std::byte> good(bytes.begin(), bytes.end());
  // Half of the bytes hit lie where there is more than text.
  const std::vector<std::pair<size_t, size_t>> areas = {
      {0, (list.size() + 2) * 8},
      {bytes.size() - list.size() * 9, bytes.size()},
      {0, bytes.size()},
  };
  int opened = 0;
  for (int round = 0; round < 3000; ++round) {
    std::memcpy(bytes.data(), good.data(), good.size());
    const auto [begin, end] = areas[random() % areas.size()];
    for (size_t n = random() % 8 + 1; n > 0; --n) {
      const size_t at = begin + random() % (end - begin);
      bytes[at] = random() % 2 == 0 ? static_cast<std::byte>(random())
                                    : bytes[at] ^ std::byte{1};
    }
    const absl::StatusOr<ShareableList> same =
        ShareableList::Open(list.memory().name());
    if (same.ok()) {
      ++opened;
      Exercise(*same);
    } else {
      ASSERT_THAT(same, StatusIs(absl::StatusCode::kDataLoss, _));
    }
    Exercise(list);  // which knows the table from before
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(opened, 0);
}

TEST_F(ShareableListTest, TornItemsNeverCrash) {
  const ShareableList list = Create({"12345678abcdefg"});
  Child child = Child::Fork([&](Child::Side side) {
    const std::vector<Item> items = {Repeat("\u20ac", 5), 1,  kNone, true,
                                     Bytes{"bytes"},      2.5};
    for (size_t i = 0;; ++i) {
      if (!list.Set(0, items[i % items.size()]).ok()) return 1;
      if (i == items.size()) side.Tell();
    }
  });
  ASSERT_TRUE(child.Hear());
  for (int i = 0; i < 200000; ++i) {
    const absl::StatusCode code = list.Get(0).status().code();
    ASSERT_TRUE(code == absl::StatusCode::kOk ||
                code == absl::StatusCode::kDataLoss)
        << code;
  }
  child.Kill();
}

}  // namespace
}  // namespace ipc::shm
