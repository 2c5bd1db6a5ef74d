#include "services/agent/environment.h"

#include <stdlib.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::agent {
namespace {

TEST(EnvironmentTest, WhatIsForThisProcessIsNotForItsChildren) {
  clearenv();
  for (const char* variable :
       {"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET"}) {
    setenv(variable, "1", 1);
    EXPECT_TRUE(IsForOneProcess(variable));
  }
  // Programs have variables of their own that look alike.
  setenv("LISTEN_ADDRESS", "localhost", 1);
  setenv("NOTIFY_SOCKETS", "a=b", 1);
  setenv("HOME", "/root", 1);
  EXPECT_THAT(InheritableEnv(), testing::UnorderedElementsAre(
                                    "LISTEN_ADDRESS=localhost",
                                    "NOTIFY_SOCKETS=a=b", "HOME=/root"));
}

}  // namespace
}  // namespace parley::agent
