// A pipe whose ends close themselves, for what a child writes.
#ifndef TESTS_TESTING_PIPE_H_
#define TESTS_TESTING_PIPE_H_

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"

namespace ipc::testing {

struct Pipe {
  Pipe() {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    read_end.Reset(fds[0]);
    write_end.Reset(fds[1]);
  }
  UniqueFd read_end;
  UniqueFd write_end;
};

// To the end of the stream: until the last writer is gone.
inline std::string ReadAll(int fd) {
  std::string text;
  char buffer[4096];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof(buffer))) > 0) text.append(buffer, n);
  return text;
}

}  // namespace ipc::testing

#endif  // TESTS_TESTING_PIPE_H_
