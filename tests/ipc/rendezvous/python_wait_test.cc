// multiprocessing.connection.wait of a real Python, on descriptors of ours:
// what is Waitable here is so there, too.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/waitable.h"
#include "ipc/mqueue/queue.h"
#include "ipc/pipe/connection.h"
#include "ipc/process/process.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/connect.h"
#include "ipc/rendezvous/listener.h"
#include "tests/ipc/rendezvous/temp_directory.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::rendezvous {
namespace {

using ::ipc::pipe::Connection;
using ::ipc::testing::Child;

// A Python that waits for them, and what it prints.
class PythonThatWaits {
 public:
  PythonThatWaits(std::initializer_list<const Waitable*> waitables)
      : child_(Start(waitables, &reader_)) {}

  std::string ReadLine() {
    std::string line;
    char byte;
    while (read(reader_.get(), &byte, 1) == 1 && byte != '\n') line += byte;
    return line;
  }
  int Wait() { return child_.Wait(); }

 private:
  static Child Start(std::initializer_list<const Waitable*> waitables,
                     UniqueFd* reader) {
    // Copies that neither an exec nor a fork closes.
    std::vector<UniqueFd> copies;
    std::vector<std::string> arguments = {
        "python3", "-I", "tests/ipc/rendezvous/python_wait.py"};
    for (const Waitable* waitable : waitables) {
      copies.emplace_back(fcntl(waitable->poll_fd(), F_DUPFD, 3));
      arguments.push_back(absl::StrCat(copies.back().get()));
    }
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) abort();
    reader->Reset(fds[0]);
    const UniqueFd writer(fds[1]);
    return Child::Fork([&] {
      dup2(writer.get(), STDOUT_FILENO);
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      execv("/usr/bin/python3", argv.data());
      perror("execv /usr/bin/python3");
      return 127;
    });
  }

  UniqueFd reader_;
  Child child_;
};

TEST(PythonWaitTest, Wait) {
  TempDirectory directory;
  const Address address = Address::Unix(directory.Path("s"));
  auto listener = Listener::Listen(address);
  ASSERT_THAT(listener, IsOk());
  auto hold = Connection::CreatePair();
  ASSERT_THAT(hold, IsOk());
  auto process = process::Process::Start([&] {
    hold->first.Close();
    (void)hold->second.Receive();  // until the other end is closed
    return 0;
  });
  ASSERT_THAT(process, IsOk());
  hold->second.Close();
  auto pair = Connection::CreatePair();
  ASSERT_THAT(pair, IsOk());

  PythonThatWaits python({&*listener, &*process, &pair->first});
  EXPECT_EQ(python.ReadLine(), "none");
  auto client = Connect(address);
  ASSERT_THAT(client, IsOk());
  EXPECT_EQ(python.ReadLine(), "0");
  hold->first.Close();
  EXPECT_EQ(python.ReadLine(), "1");
  EXPECT_THAT(pair->second.Send("message"), IsOk());
  EXPECT_EQ(python.ReadLine(), "2");
  EXPECT_EQ(python.ReadLine(), "");
  EXPECT_EQ(python.Wait(), 0);
}

// That of a queue says that there may be a message, also when there is none: so
// here there is.
TEST(PythonWaitTest, WaitForAQueue) {
  auto queue = mqueue::Queue::CreateAnonymous();
  ASSERT_THAT(queue, IsOk());
  ASSERT_THAT(queue->EnablePolling(), IsOk());
  EXPECT_THAT(queue->Send("message"), IsOk());
  PythonThatWaits python({&*queue});
  EXPECT_EQ(python.ReadLine(), "some");
  EXPECT_EQ(python.ReadLine(), "0");
  EXPECT_EQ(python.Wait(), 0);
}

}  // namespace
}  // namespace ipc::rendezvous
