#include "services/control/binaries.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class BinariesTest : public testing::Test {
 protected:
  BinariesTest() {
    std::string pattern = absl::StrCat(testing::TempDir(), "/rootXXXXXX");
    root_ = mkdtemp(pattern.data());
    mkdir(Path("pkg").c_str(), 0700);
    Write("pkg/pkg", 0700);
    Write("pkg/other", 0700);
    Write("pkg/data", 0600);
  }

  std::string Path(absl::string_view file) const {
    return absl::StrCat(root_, "/", file);
  }
  void Write(absl::string_view file, mode_t mode) {
    std::ofstream(Path(file)) << "#!/bin/sh\n";
    chmod(Path(file).c_str(), mode);
  }
  std::string ErrorOf(absl::string_view binary) const {
    return std::string(BinaryResolver({"/nowhere", root_})
                           .Resolve(binary, "")
                           .status()
                           .message());
  }

  std::string root_;
};

TEST_F(BinariesTest, FindsLabelsAndPaths) {
  const BinaryResolver binaries({"/nowhere", root_});
  EXPECT_EQ(binaries.Resolve("//pkg:other", "").value(), Path("pkg/other"));
  EXPECT_EQ(binaries.Resolve("//pkg", "").value(), Path("pkg/pkg"));
  EXPECT_EQ(binaries.Resolve("pkg/other", root_).value(), Path("pkg/other"));
  EXPECT_EQ(binaries.Resolve(Path("pkg/pkg"), "/else").value(),
            Path("pkg/pkg"));
}

TEST_F(BinariesTest, SaysWhereItLookedAndWhatToDo) {
  EXPECT_THAT(ErrorOf("//pkg:absent"),
              HasSubstr(absl::StrCat("(looked for /nowhere/pkg/absent, ", root_,
                                     "/pkg/absent)")));
  EXPECT_THAT(ErrorOf("//pkg:data"), HasSubstr("is not executable"));
  EXPECT_THAT(ErrorOf("/"), HasSubstr("is a directory"));
  EXPECT_THAT(ErrorOf("@other//pkg"), HasSubstr("of another repository"));
  EXPECT_THAT(ErrorOf("//pkg:"), HasSubstr("write //package:name"));
  EXPECT_THAT(ErrorOf("true"), HasSubstr("PATH is not searched"));
}

TEST_F(BinariesTest, RunfilesOfEveryKindOfStart) {
  mkdir(Path("run.runfiles").c_str(), 0700);
  mkdir(Path("run.runfiles/parley").c_str(), 0700);
  mkdir(Path("parley").c_str(), 0700);
  setenv("RUNFILES_DIR", root_.c_str(), 1);
  setenv("TEST_SRCDIR", root_.c_str(), 1);
  EXPECT_THAT(RunfilesRoots(Path("run"), "parley"),
              ElementsAre(Path("parley"), Path("run.runfiles/parley")));
  unsetenv("RUNFILES_DIR");
  unsetenv("TEST_SRCDIR");
  EXPECT_THAT(RunfilesRoots(Path("run.runfiles/parley/services/control/parley"),
                            "parley"),
              ElementsAre(Path("run.runfiles/parley")));
}

}  // namespace
}  // namespace parley::control
