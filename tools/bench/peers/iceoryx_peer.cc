#include "tools/bench/peers/iceoryx_peer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <iceoryx_hoofs/log/logmanager.hpp>
#include <iceoryx_hoofs/posix_wrapper/posix_access_rights.hpp>
#include <iceoryx_posh/internal/roudi/roudi.hpp>
#include <iceoryx_posh/mepoo/mepoo_config.hpp>
#include <iceoryx_posh/roudi/iceoryx_roudi_components.hpp>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

namespace bench {
namespace {

constexpr char kPrefix[] = "parley-bench-";

// Chunks of a little more than the sizes that are measured; of the largest, 64
// fill the third cache, as do the slots of the other peers.
iox::RouDiConfig_t MakeConfig() {
  iox::mepoo::MePooConfig pools;
  for (const auto& [bytes, count] : {std::pair<uint32_t, uint32_t>{128, 1024},
                                     {1024 + 64, 1024},
                                     {(64 << 10) + 64, 512},
                                     {(1 << 20) + 64, 64}}) {
    pools.addMemPool({bytes, count});
  }
  const auto group = iox::posix::PosixGroup::getGroupOfCurrentProcess();
  iox::RouDiConfig_t config;
  config.m_sharedMemorySegments.push_back(
      {group.getName(), group.getName(), pools});
  return config;
}

}  // namespace

IceoryxDaemon::IceoryxDaemon() {
  int ready[2];
  CheckCall(pipe(ready) == 0, "pipe");
  const pid_t parent = getpid();
  pid_ = fork();
  CheckCall(pid_ >= 0, "fork");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    // It tells of every process that was killed.
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    iox::roudi::IceOryxRouDiComponents components(MakeConfig());
    iox::roudi::RouDi daemon(components.rouDiMemoryManager,
                             components.portManager,
                             iox::roudi::RouDi::RoudiStartupParameters(
                                 iox::roudi::MonitoringMode::OFF, false));
    CheckCall(write(ready[1], "r", 1) == 1, "write");
    while (true) pause();
  }
  close(ready[1]);
  char byte;
  if (read(ready[0], &byte, 1) != 1) {
    Die("iceoryx's daemon did not start; is another one running?");
  }
  close(ready[0]);
}

// By SIGKILL, for it may wait for ever for a process that was killed; so what
// it made has to be removed here.
IceoryxDaemon::~IceoryxDaemon() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  shm_unlink("/iceoryx_mgmt");
  shm_unlink(
      ("/" + std::string(iox::posix::PosixGroup::getGroupOfCurrentProcess()
                             .getName()
                             .c_str()))
          .c_str());
  std::error_code ignored;
  for (const auto& entry :
       std::filesystem::directory_iterator("/tmp", ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kPrefix, 0) == 0 || name == "roudi" ||
        name == "iox-unique-roudi.lock") {
      std::filesystem::remove(entry.path(), ignored);
    }
  }
}

std::shared_ptr<IceoryxDaemon> IceoryxDaemon::Get() {
  static std::weak_ptr<IceoryxDaemon> running;
  std::shared_ptr<IceoryxDaemon> daemon = running.lock();
  if (daemon == nullptr) {
    daemon.reset(new IceoryxDaemon);
    running = daemon;
  }
  return daemon;
}

IceoryxPeer::IceoryxPeer(const Load& load)
    : daemon_(IceoryxDaemon::Get()), bytes_(load.bytes), depth_(load.depth) {
  static int count = 0;
  topic_ = std::to_string(++count);
}

bool IceoryxPeer::Register(const char* role) {
  const std::string name = kPrefix + std::to_string(getpid()) + role;
  static bool registered = false;
  if (!registered) {
    iox::log::LogManager::GetLogManager().SetDefaultLogLevel(
        iox::log::LogLevel::kError, iox::log::LogLevelOutput::kHideLogLevel);
    iox::runtime::PoshRuntime::initRuntime(
        iox::RuntimeName_t(iox::cxx::TruncateToCapacity, name.c_str()));
  }
  registered = true;
  return registered;
}

}  // namespace bench
