#include "services/control/channel_rules.h"

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/control/field_rules.h"
#include "services/control/names.h"
#include "services/control/suggest.h"

namespace parley::control {
namespace {

bool IsPipe(const v1::Channel& channel, bool duplex) {
  return channel.kind_case() == v1::Channel::kPipe &&
         channel.pipe().duplex() == duplex;
}

void CheckRole(const Field& field, const v1::Channel& channel,
               v1::Grant::Role role, Diagnostics& diagnostics) {
  if (role == v1::Grant::ROLE_UNSPECIFIED) {
    diagnostics.Add(field, IsPipe(channel, true)
                               ? "is not set; write READ_WRITE"
                           : IsPipe(channel, false)
                               ? "is not set; write READ or WRITE"
                               : "is not set; write READ, WRITE or READ_WRITE");
  } else if (IsPipe(channel, false) && role == v1::Grant::READ_WRITE) {
    diagnostics.Add(
        field,
        absl::StrCat("a pipe has one direction; write READ or "
                     "WRITE instead, or make \"",
                     channel.name(), "\" one with `pipe { duplex: true }`"));
  } else if (IsPipe(channel, true) && role != v1::Grant::READ_WRITE) {
    diagnostics.Add(field, absl::StrCat("both ends of a duplex pipe send and "
                                        "receive; write READ_WRITE instead, "
                                        "or `pipe {}` for \"",
                                        channel.name(), "\""));
  }
}

// Two readers of a stream would take pieces of each other's messages. Several
// writers are fine as long as their messages fit into PIPE_BUF.
void CheckHolders(const Field& field, const v1::Channel& channel,
                  v1::Grant::Role role, const std::vector<std::string>& holders,
                  Diagnostics& diagnostics) {
  if (channel.kind_case() != v1::Channel::kPipe) return;
  if (role == v1::Grant::WRITE) return;
  const size_t most = channel.pipe().duplex() ? 2 : 1;
  if (holders.size() <= most) return;
  const char* what = channel.pipe().duplex() ? "ends" : "reader";
  diagnostics.Add(
      field,
      absl::StrCat("\"", holders.back(), "\" is one too many: pipe \"",
                   channel.name(), "\" has ", most, " ", what, ", held by \"",
                   holders[0],
                   most == 2 ? absl::StrCat("\" and \"", holders[1]) : "",
                   "\"; write a channel of its own for each, or use "
                   "an mqueue"));
}

}  // namespace

void CheckChannels(const ParsedScenario& parsed, Diagnostics& diagnostics) {
  std::set<std::string> names;
  for (int i = 0; i < parsed.scenario.channel_size(); ++i) {
    const v1::Channel& channel = parsed.scenario.channel(i);
    const Field field = parsed.root().At("channel", i);
    CheckName(field.At("name"), channel.name(), diagnostics);
    if (!names.insert(channel.name()).second) {
      diagnostics.Add(field.At("name"),
                      absl::StrCat("there is already a channel \"",
                                   channel.name(), "\"; write another name"));
    }
    if (channel.kind_case() == v1::Channel::KIND_NOT_SET) {
      diagnostics.Add(field, absl::StrCat("channel \"", channel.name(),
                                          "\" has no kind; write `pipe {}`, "
                                          "`shm { bytes: 4096 }` or "
                                          "`mqueue {}` in it"));
    }
    if (channel.has_shm() && channel.shm().bytes() == 0) {
      diagnostics.Add(field.At("shm").At("bytes"),
                      "is zero; write how many bytes the processes share");
    }
  }
}

void CheckGrants(const ParsedScenario& parsed, Diagnostics& diagnostics) {
  std::map<std::string, const v1::Channel*> channels;
  std::vector<std::string> known;
  for (const v1::Channel& channel : parsed.scenario.channel()) {
    channels.insert({channel.name(), &channel});
    known.push_back(channel.name());
  }
  // Channel and role -> who holds it.
  std::map<std::pair<std::string, int>, std::vector<std::string>> holders;
  for (int i = 0; i < parsed.scenario.process_size(); ++i) {
    const v1::Process& process = parsed.scenario.process(i);
    std::set<std::string> called;
    for (int j = 0; j < process.grant_size(); ++j) {
      const v1::Grant& grant = process.grant(j);
      const Field field = parsed.root().At("process", i).At("grant", j);
      if (!grant.as().empty()) {
        CheckName(field.At("as"), grant.as(), diagnostics);
      }
      const std::string& as = grant.as().empty() ? grant.channel() : grant.as();
      if (!called.insert(as).second) {
        diagnostics.Add(field.At(grant.as().empty() ? "channel" : "as"),
                        absl::StrCat("process \"", process.name(),
                                     "\" already has a grant called \"", as,
                                     "\"; write another `as`"));
      }
      const auto found = channels.find(grant.channel());
      if (found == channels.end()) {
        diagnostics.Add(field.At("channel"),
                        absl::StrCat("there is no channel \"", grant.channel(),
                                     "\"", Suggest(grant.channel(), known)));
        continue;
      }
      CheckRole(field.At("role"), *found->second, grant.role(), diagnostics);
      std::vector<std::string>& held =
          holders[{grant.channel(), static_cast<int>(grant.role())}];
      for (const std::string& instance : InstanceNames(process)) {
        held.push_back(instance);
        CheckHolders(field, *found->second, grant.role(), held, diagnostics);
      }
    }
  }
}

}  // namespace parley::control
