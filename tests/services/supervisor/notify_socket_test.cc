// Both ends of sd_notify: the agent's and the supervisor's.
#include "services/supervisor/notify_socket.h"

#include <stdlib.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/agent/notify.h"

namespace parley::supervisor {
namespace {

TEST(NotifySocketTest, WhatTheAgentSaysArrives) {
  absl::StatusOr<NotifySocket> socket = NotifySocket::Create();
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_FALSE(socket->Receive().has_value());
  setenv("NOTIFY_SOCKET", socket->name().c_str(), 1);
  absl::StatusOr<agent::Notifier> notifier = agent::Notifier::FromEnvironment();
  ASSERT_TRUE(notifier.ok()) << notifier.status();
  EXPECT_EQ(getenv("NOTIFY_SOCKET"), nullptr) << "not for grandchildren";

  ASSERT_TRUE(notifier->Notify("READY=1\nSTATUS=serving").ok());
  ASSERT_TRUE(notifier->Notify("STOPPING=1").ok());
  ASSERT_TRUE(notifier->Notify("SOMETHING=else\nREADY=0").ok());
  std::optional<Notification> n = socket->Receive();
  ASSERT_TRUE(n.has_value());
  EXPECT_TRUE(n->ready);
  EXPECT_FALSE(n->stopping);
  EXPECT_EQ(n->status, "serving");
  n = socket->Receive();
  ASSERT_TRUE(n.has_value());
  EXPECT_FALSE(n->ready);
  EXPECT_TRUE(n->stopping);
  n = socket->Receive();
  ASSERT_TRUE(n.has_value());
  EXPECT_FALSE(n->ready || n->stopping || n->status.has_value());
  EXPECT_FALSE(socket->Receive().has_value());
}

TEST(NotifierTest, ASupervisorThatDoesNotReadIsAnErrorNotAWait) {
  absl::StatusOr<NotifySocket> socket = NotifySocket::Create();
  ASSERT_TRUE(socket.ok());
  setenv("NOTIFY_SOCKET", socket->name().c_str(), 1);
  absl::StatusOr<agent::Notifier> notifier = agent::Notifier::FromEnvironment();
  ASSERT_TRUE(notifier.ok());
  absl::Status status;
  for (int i = 0; i < 100000 && status.ok(); ++i) {
    status = notifier->Notify("STATUS=again");
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
}

TEST(NotifierTest, BadNamesAreNamed) {
  setenv("NOTIFY_SOCKET", "relative/path", 1);
  EXPECT_EQ(agent::Notifier::FromEnvironment().status().code(),
            absl::StatusCode::kInvalidArgument);
  unsetenv("NOTIFY_SOCKET");
  absl::StatusOr<agent::Notifier> nobody = agent::Notifier::FromEnvironment();
  ASSERT_TRUE(nobody.ok());
  EXPECT_TRUE(nobody->Notify("READY=1").ok());
}

}  // namespace
}  // namespace parley::supervisor
