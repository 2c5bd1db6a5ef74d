#include "services/supervisor/session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/agent/environment.h"
#include "services/supervisor/dependency_graph.h"

namespace parley::supervisor {
namespace {

enum class DependencyState { kPending, kMet, kImpossible };

DependencyState StateOf(const v1::Dependency& dependency,
                        const ManagedProcess& on) {
  if (on.state() == v1::PENDING) return DependencyState::kPending;
  if (on.state() == v1::FAILED) return DependencyState::kImpossible;
  bool met = true;  // IS_STARTED
  if (dependency.condition() == v1::IS_READY) met = on.was_ready();
  if (dependency.condition() == v1::HAS_EXITED_OK) met = on.exited_ok();
  if (met) return DependencyState::kMet;
  return on.ended() ? DependencyState::kImpossible : DependencyState::kPending;
}

std::string WhyImpossible(const v1::Dependency& dependency,
                          const ManagedProcess& on) {
  std::string how = "failed";
  if (on.stop_asked()) {
    how = on.info().error().empty()
              ? "was stopped"
              : absl::StrCat("was stopped, since it ", on.info().error());
  } else if (on.state() == v1::EXITED) {
    how = on.info().exit().has_signal()
              ? absl::StrCat("was killed by signal ", on.info().exit().signal())
              : absl::StrCat("exited with ", on.info().exit().code());
  }
  return absl::StrCat("depends on ", dependency.process(), " (",
                      v1::DependencyCondition_Name(dependency.condition()),
                      "), which ", how);
}

bool IsPending(const std::unique_ptr<ManagedProcess>& process) {
  return process->state() == v1::PENDING;
}

template <typename Map>
std::string KeysOf(const Map& map) {
  if (map.empty()) return "there are none";
  return absl::StrCat(
      "there are: ",
      absl::StrJoin(map, ", ", [](std::string* out, const auto& entry) {
        out->append(entry.first);
      }));
}

using SpecsByName = std::map<std::string, const v1::ProcessSpec*>;

// Whether what they depend on is there, and none of them on itself in the end.
absl::Status CheckDependencies(const SpecsByName& specs,
                               const std::string& session) {
  std::map<std::string, int> indices;
  std::vector<const v1::ProcessSpec*> by_index;
  for (const auto& [name, spec] : specs) {
    indices[name] = static_cast<int>(by_index.size());
    by_index.push_back(spec);
  }
  DependencyEdges edges(by_index.size());
  for (const auto& [name, index] : indices) {
    for (const v1::Dependency& dependency : by_index[index]->dependencies()) {
      const auto on = indices.find(dependency.process());
      if (on == indices.end()) {
        return absl::NotFoundError(
            absl::StrCat("process ", name, " depends on \"",
                         dependency.process(), "\", which session ", session,
                         " does not have (", KeysOf(specs), ")"));
      }
      edges[index].push_back(on->second);
    }
  }
  const std::vector<int> cycle = FindCycle(edges);
  if (cycle.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("in session ", session, ", none of these can ever start: ",
                   absl::StrJoin(cycle, " -> ",
                                 [&](std::string* out, int index) {
                                   out->append(by_index[index]->name());
                                 }),
                   "; remove one of these dependencies"));
}

}  // namespace

Session::Session(EventLoop& loop, ManagedProcess::Observer& observer,
                 const ManagedProcess::Limits& limits, const std::string& name,
                 uint64_t up_revision)
    : loop_(loop),
      observer_(observer),
      limits_(limits),
      name_(name),
      up_revision_(up_revision) {}

std::vector<v1::ChannelInfo> Session::channels() const {
  std::vector<v1::ChannelInfo> result;
  for (const auto& [name, channel] : channels_) {
    v1::ChannelInfo& info = result.emplace_back();
    info.set_session(name_);
    *info.mutable_spec() = channel.spec();
    for (const auto& [process_name, process] : processes_) {
      for (const v1::Grant& grant : process->spec().grants()) {
        if (grant.channel() == name) info.add_granted_to(process_name);
      }
    }
  }
  return result;
}

absl::Status Session::Up(const v1::SessionSpec& spec) {
  for (const v1::ChannelSpec& channel_spec : spec.channels()) {
    absl::StatusOr<Channel> channel = Channel::Create(channel_spec);
    if (!channel.ok()) return channel.status();
    if (!channels_.emplace(channel_spec.name(), *std::move(channel)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("two channels are named \"", channel_spec.name(), "\""));
    }
  }
  for (const v1::ProcessSpec& process : spec.processes()) {
    if (absl::Status s = Check(process); !s.ok()) return s;
    if (!processes_.emplace(process.name(), NewProcess(process)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("two processes are named \"", process.name(), "\""));
    }
  }
  SpecsByName specs;
  for (const v1::ProcessSpec& process : spec.processes()) {
    specs[process.name()] = &process;
  }
  if (absl::Status s = CheckDependencies(specs, name_); !s.ok()) return s;
  for (const auto& [name, process] : processes_) OnChange(*process);
  return absl::OkStatus();
}

absl::Status Session::Check(const v1::ProcessSpec& spec) const {
  if (spec.name().empty() || spec.path().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "process \"", spec.name(), "\" needs a name and the path of a binary"));
  }
  for (const auto& [variable, value] : spec.env()) {
    // A "=" in the name would make it another's.
    if (variable.empty() || variable.find('=') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(
          "process ", spec.name(), ": \"", variable,
          "\" is no name of an environment variable: give it one that is not "
          "empty and has no \"=\""));
    }
    if (agent::IsForOneProcess(variable)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "process ", spec.name(), ": the environment variable ", variable,
          " is set by the supervisor: remove it, and grant channels"));
    }
  }
  for (const v1::Grant& grant : spec.grants()) {
    if (!channels_.contains(grant.channel())) {
      return absl::NotFoundError(
          absl::StrCat("process ", spec.name(), " is granted the channel \"",
                       grant.channel(), "\", which session ", name_,
                       " does not have (", KeysOf(channels_), ")"));
    }
    if (grant.as().empty() || grant.as().find(':') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(
          "process ", spec.name(), " is granted channel \"", grant.channel(),
          "\" as \"", grant.as(), "\": give it a name without a colon"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ManagedProcess*> Session::Find(const std::string& process) {
  const auto it = processes_.find(process);
  if (it == processes_.end()) {
    return absl::NotFoundError(absl::StrCat("session ", name_,
                                            " has no process \"", process,
                                            "\" (", KeysOf(processes_), ")"));
  }
  return it->second.get();
}

absl::StatusOr<ManagedProcess*> Session::StartProcess(
    const v1::ProcessSpec& spec) {
  if (stopping_) {
    return absl::FailedPreconditionError(
        absl::StrCat("session ", name_, " is being stopped"));
  }
  if (absl::Status s = Check(spec); !s.ok()) return s;
  SpecsByName specs;
  for (const auto& [name, other] : processes_) specs[name] = &other->spec();
  specs[spec.name()] = &spec;
  if (absl::Status s = CheckDependencies(specs, name_); !s.ok()) return s;
  std::unique_ptr<ManagedProcess>& process = processes_[spec.name()];
  if (process == nullptr) {
    process = NewProcess(spec);
    OnChange(*process);
  } else if (process->ended()) {
    process->Restart(spec);
  } else {
    return absl::AlreadyExistsError(absl::StrCat(
        "process ", spec.name(), " of session ", name_, " is ",
        v1::ProcessState_Name(process->state()), ": stop it first"));
  }
  StartWhatCanBe();
  return process.get();
}

void Session::Stop(std::function<void()> stopped) {
  stopping_ = true;
  stopped_.push_back(std::move(stopped));
  for (const auto& [name, process] : processes_) {
    if (IsPending(process)) process->Fail("its session was stopped first");
  }
  Advance();
}

void Session::OnChange(ManagedProcess& process) {
  observer_.OnChange(process);
  Advance();
}

void Session::OnReaped(ManagedProcess& process) { observer_.OnReaped(process); }

void Session::OnOutput(ManagedProcess& process) { observer_.OnOutput(process); }

// Goes on after the handlers at hand: a change may have come from the middle of
// starting or stopping another process.
void Session::Advance() {
  if (*advance_posted_) return;
  *advance_posted_ = true;
  loop_.Post([this, alive = std::weak_ptr<bool>(advance_posted_)] {
    if (alive.expired()) return;
    *advance_posted_ = false;
    if (stopping_) {
      StopWhatCanBe();
    } else {
      StartWhatCanBe();
    }
  });
}

void Session::StartWhatCanBe() {
  bool changed = true;
  while (changed) {
    changed = false;
    for (const auto& [name, process] : processes_) {
      if (!IsPending(process)) continue;
      bool can_start = true;
      for (const v1::Dependency& dependency : process->spec().dependencies()) {
        const ManagedProcess& on = *processes_.at(dependency.process());
        const DependencyState state = StateOf(dependency, on);
        if (state == DependencyState::kMet) continue;
        can_start = false;
        if (state == DependencyState::kImpossible) {
          process->Fail(WhyImpossible(dependency, on));
          changed = true;
          break;
        }
      }
      if (can_start) {
        Start(*process);
        changed = true;
      }
    }
  }
  ReleaseChannelEnds();
}

std::unique_ptr<ManagedProcess> Session::NewProcess(
    const v1::ProcessSpec& spec) {
  return std::make_unique<ManagedProcess>(
      loop_, static_cast<ManagedProcess::Observer&>(*this), limits_, name_,
      spec);
}

void Session::Start(ManagedProcess& process) {
  std::vector<std::pair<std::string, ipc::UniqueFd>> fds;
  for (const v1::Grant& grant : process.spec().grants()) {
    absl::StatusOr<ipc::UniqueFd> fd =
        channels_.at(grant.channel()).Open(process.name(), grant.role());
    if (!fd.ok()) {
      process.Fail(std::string(fd.status().message()));
      return;
    }
    fds.emplace_back(grant.as(), *std::move(fd));
  }
  process.Start(std::move(fds));
}

// Closes what no process is waiting to be given: a reader must see the end when
// the last writer is gone, and a writer that the last reader is. An end that no
// process was granted yet is kept for one that is added later; else whoever
// comes first finds the other end closed. Nobody comes while stopping.
void Session::ReleaseChannelEnds() {
  for (auto& [name, channel] : channels_) {
    const bool duplex = channel.spec().pipe().duplex();
    int readers = 0, writers = 0;
    bool read_awaited = false, write_awaited = false;
    for (const auto& [process_name, process] : processes_) {
      bool reads = false, writes = false;
      for (const v1::Grant& grant : process->spec().grants()) {
        if (grant.channel() != name) continue;
        reads |= grant.role() != v1::WRITE;
        writes |= grant.role() != v1::READ;
      }
      readers += reads;
      writers += writes;
      read_awaited |= reads && IsPending(process);
      write_awaited |= writes && IsPending(process);
    }
    // Of a duplex pipe, the second end belongs to the second process.
    const bool read_given = readers > 0;
    const bool write_given = writers > (duplex ? 1 : 0);
    if (stopping_ || (read_given && !read_awaited)) channel.Release(v1::READ);
    if (stopping_ || (write_given && !write_awaited)) {
      channel.Release(v1::WRITE);
    }
  }
}

// Whether a process that still runs depends on this one.
bool Session::IsNeeded(const ManagedProcess& needed) const {
  return std::any_of(
      processes_.begin(), processes_.end(), [&](const auto& entry) {
        const auto& dependencies = entry.second->spec().dependencies();
        return entry.second->running() &&
               std::any_of(dependencies.begin(), dependencies.end(),
                           [&](const v1::Dependency& dependency) {
                             return dependency.process() == needed.name();
                           });
      });
}

// There is always one that can be, since no dependencies form a circle.
void Session::StopWhatCanBe() {
  ReleaseChannelEnds();
  bool all_ended = true;
  for (const auto& [name, process] : processes_) {
    if (process->ended()) continue;
    all_ended = false;
    if (!process->stop_asked() && !IsNeeded(*process)) {
      process->Stop(process->default_grace());
    }
  }
  if (!all_ended) return;
  std::vector<std::function<void()>> stopped;
  stopped.swap(stopped_);
  for (const auto& callback : stopped) callback();
}

}  // namespace parley::supervisor
