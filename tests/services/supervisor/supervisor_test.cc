// The supervisor in the process of the test, where the order of calls is ours.
#include "services/supervisor/supervisor.h"

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/supervisor/event_loop.h"
#include "tests/services/supervisor/running_supervisor.h"

namespace parley::supervisor {
namespace {

// One that came when all had stopped, but the session was not yet forgotten,
// waited for a stop that never came: the session was gone by then.
TEST(SupervisorTest, EveryDownIsAnsweredWheneverItComes) {
  EventLoop loop;
  auto supervisor = Supervisor::Create(loop);
  ASSERT_TRUE(supervisor.ok()) << supervisor.status();
  ASSERT_TRUE((*supervisor)->Up(Session("s")).ok());

  // One in each turn of the loop until the session is gone, and beyond.
  size_t asked = 0;
  std::vector<absl::StatusCode> answers;
  std::function<void()> ask = [&] {
    const bool is_gone = (*supervisor)->sessions().empty();
    ++asked;
    (*supervisor)->Down("s", [&](const absl::Status& status) {
      answers.push_back(status.code());
      if (answers.back() == absl::StatusCode::kNotFound) loop.Quit();
    });
    if (!is_gone) loop.Post(ask);
  };
  ask();
  loop.RunAfter(kPatience, [&] { loop.Quit(); });
  loop.Run();
  ASSERT_EQ(answers.size(), asked);
  EXPECT_GE(asked, 3u) << "none came between";
  EXPECT_EQ(answers.back(), absl::StatusCode::kNotFound);
  answers.pop_back();
  EXPECT_THAT(answers, testing::Each(absl::StatusCode::kOk));
}

}  // namespace
}  // namespace parley::supervisor
