#include "services/control/text_check.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::control {
namespace {

using ::testing::HasSubstr;

TEST(TextCheckTest, EverythingThatIsSetMustHold) {
  v1::Text expected;
  expected.set_equals("one\ntwo\n");
  expected.add_contains("ne\nt");
  expected.add_matches("(?m)^t.o$");
  EXPECT_EQ(CheckText(expected, "one\ntwo\n"), "");
  expected.add_contains("three");
  EXPECT_EQ(CheckText(expected, "one\ntwo\n"),
            "expected to contain \"three\", seen \"one\\ntwo\\n\"");
}

TEST(TextCheckTest, ShowsTheFirstDifference) {
  v1::Text expected;
  expected.set_equals("one\nHello\n");
  EXPECT_EQ(CheckText(expected, "one\nHelo\n"),
            "expected exactly \"one\\nHello\\n\", seen \"one\\nHelo\\n\"; they "
            "differ from byte 7 on, in line 2: expected \"lo\\n\", seen "
            "\"o\\n\"");
  EXPECT_THAT(CheckText(expected, "one\n"),
              HasSubstr("from byte 4 on, in line 2: expected \"Hello\\n\", "
                        "seen the end"));
}

TEST(TextCheckTest, AnExpectedNothingIsNotNoExpectation) {
  v1::Text expected;
  expected.set_equals("");
  EXPECT_EQ(CheckText(expected, ""), "");
  EXPECT_THAT(CheckText(expected, "x"), HasSubstr("expected the end"));
}

TEST(TextCheckTest, LongAndBinaryTextStaysReadable) {
  v1::Text expected;
  expected.add_contains(std::string("\0\xff", 2));
  const std::string wrong = CheckText(expected, std::string(100000, 'a'));
  EXPECT_LT(wrong.size(), 500);
  EXPECT_THAT(wrong, HasSubstr("\"\\000\\377\""));
  EXPECT_THAT(wrong, HasSubstr("(100000 bytes)"));
}

}  // namespace
}  // namespace parley::control
