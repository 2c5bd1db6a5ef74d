// Reads a scenario file, and remembers where in it each field stands, so that
// what is found wrong later is reported by line.
//
// Example:
//
//   absl::StatusOr<ParsedScenario> parsed =
//       ParseScenario(text, "pipe.textproto");
//   Diagnostics diagnostics;
//   const Field grant = parsed->root().At("process", 1).At("grant", 0);
//   diagnostics.Add(grant.At("channel"), "there is no channel \"mesages\"");
//   return diagnostics.ToStatus();
//
// gives INVALID_ARGUMENT
// `pipe.textproto:12:5: process[1].grant[0].channel: there is no channel …`.
//
// Thread safety: const members from many threads.
//
// Lifetime: a Field points into its ParsedScenario.
#ifndef SERVICES_CONTROL_SCENARIO_PARSER_H_
#define SERVICES_CONTROL_SCENARIO_PARSER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/text_format.h"
#include "services/control/scenario.pb.h"

namespace parley::control {

// One field of a scenario: its path, and its place in the text if it came from
// one. A field that was not written has the place of what encloses it.
class Field {
 public:
  // The field `name` of this message; `index` is that of a repeated one.
  Field At(absl::string_view name, int index = -1) const;
  // The innermost field's name: "channel".
  const std::string& name() const { return name_; }

 private:
  friend class Diagnostics;
  friend struct ParsedScenario;
  Field() = default;

  const google::protobuf::Descriptor* type_ = nullptr;
  const google::protobuf::TextFormat::ParseInfoTree* tree_ = nullptr;
  google::protobuf::TextFormat::ParseLocation location_;
  std::string file_;
  std::string path_;
  std::string name_;
};

struct ParsedScenario {
  v1::Scenario scenario;
  std::string file_name;  // for messages; may be empty
  // Null if it did not come from text.
  std::unique_ptr<google::protobuf::TextFormat::ParseInfoTree> positions;

  Field root() const;
  // The file's directory, from which relative paths start; "." if unknown.
  std::string directory() const;
};

// What is wrong with a scenario: everything, not the first thing.
class Diagnostics {
 public:
  // `what` says what is wrong and what to write instead.
  void Add(const Field& field, absl::string_view what);
  // Line and column count from 1.
  void AddAt(absl::string_view file, int line, int column,
             absl::string_view field, absl::string_view what);

  bool empty() const { return entries_.empty(); }
  // InvalidArgument with one line for each, in the order of the text; OK if
  // there is none.
  absl::Status ToStatus() const;

 private:
  struct Entry {
    int line = 0;  // 0: no text
    int column = 0;
    std::string text;
  };
  std::vector<Entry> entries_;
};

// InvalidArgument with a line `file:line:column: field: what is wrong` for each
// field that does not exist, and for the first violation of the text format.
absl::StatusOr<ParsedScenario> ParseScenario(absl::string_view text,
                                             absl::string_view file_name);
// NotFound, PermissionDenied and so on if it cannot be read.
absl::StatusOr<ParsedScenario> ParseScenarioFile(const std::string& path);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_SCENARIO_PARSER_H_
