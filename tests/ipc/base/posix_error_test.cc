#include "ipc/base/posix_error.h"

#include <errno.h>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace ipc {
namespace {

TEST(PosixErrorTest, NamesContextAndError) {
  const absl::Status status = PosixError(EINVAL, "ftruncate scores to -1");
  EXPECT_EQ(status, absl::InvalidArgumentError(
                        "ftruncate scores to -1: Invalid argument"));
}

TEST(PosixErrorTest, MapsWhatCallersTellApart) {
  EXPECT_TRUE(absl::IsNotFound(PosixError(ENOENT, "x")));
  EXPECT_TRUE(absl::IsAlreadyExists(PosixError(EEXIST, "x")));
  EXPECT_TRUE(absl::IsPermissionDenied(PosixError(EACCES, "x")));
  EXPECT_TRUE(absl::IsPermissionDenied(PosixError(EPERM, "x")));
  EXPECT_TRUE(absl::IsResourceExhausted(PosixError(ENOSPC, "x")));
  EXPECT_TRUE(absl::IsResourceExhausted(PosixError(ENOMEM, "x")));
  EXPECT_TRUE(absl::IsResourceExhausted(PosixError(EMFILE, "x")));
  EXPECT_TRUE(absl::IsResourceExhausted(PosixError(ETOOMANYREFS, "x")));
}

TEST(PosixErrorTest, APeerThatHasGoneIsUnavailable) {
  EXPECT_TRUE(absl::IsUnavailable(PosixError(EPIPE, "x")));
  EXPECT_TRUE(absl::IsUnavailable(PosixError(ECONNRESET, "x")));
  EXPECT_TRUE(absl::IsUnavailable(PosixError(ECONNREFUSED, "x")));
}

TEST(PosixErrorTest, AnUnknownErrorIsStillAnError) {
  const absl::Status status = PosixError(99'999, "x");
  EXPECT_TRUE(absl::IsUnknown(status)) << status;
}

TEST(AnnotateTest, KeepsTheCodeAndPrependsTheContext) {
  EXPECT_EQ(Annotate(absl::DataLossError("torn"), "reading a.log"),
            absl::DataLossError("reading a.log: torn"));
}

TEST(AnnotateTest, LeavesOkAlone) {
  EXPECT_EQ(Annotate(absl::OkStatus(), "reading a.log"), absl::OkStatus());
}

TEST(RetryOnEintrTest, RepeatsOnlyWhatWasInterrupted) {
  int calls = 0;
  EXPECT_EQ(RetryOnEintr([&] {
              errno = EINTR;
              return ++calls < 3 ? -1 : 7;
            }),
            7);
  EXPECT_EQ(calls, 3);

  calls = 0;
  EXPECT_EQ(RetryOnEintr([&] {
              ++calls;
              errno = EBADF;
              return -1;
            }),
            -1);
  EXPECT_EQ(calls, 1);
}

// EINTR may be left over from an earlier call.
TEST(RetryOnEintrTest, DoesNotRepeatASuccess) {
  int calls = 0;
  errno = EINTR;
  EXPECT_EQ(RetryOnEintr([&] { return calls++; }), 0);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace ipc
