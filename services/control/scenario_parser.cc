#include "services/control/scenario_parser.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"
#include "services/control/suggest.h"

namespace parley::control {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::TextFormat;

// Every message type that a scenario is made of.
void CollectTypes(const Descriptor* type, std::set<const Descriptor*>& types) {
  if (!types.insert(type).second) return;
  for (int i = 0; i < type->field_count(); ++i) {
    const Descriptor* nested = type->field(i)->message_type();
    if (nested != nullptr) CollectTypes(nested, types);
  }
}

std::set<const Descriptor*> ScenarioTypes() {
  std::set<const Descriptor*> types;
  CollectTypes(v1::Scenario::descriptor(), types);
  return types;
}

// The text between the n-th pair of double quotes.
std::string Quoted(absl::string_view message, size_t n) {
  const std::vector<std::string> parts = absl::StrSplit(message, '"');
  return 2 * n + 1 < parts.size() ? parts[2 * n + 1] : "";
}

// protobuf reports what it met; these say what to write.
class Collector : public google::protobuf::io::ErrorCollector {
 public:
  Collector(absl::string_view text, absl::string_view file,
            Diagnostics& diagnostics)
      : text_(text), file_(file), diagnostics_(diagnostics) {}

  void AddError(int line, int column, const std::string& message) override {
    // Some messages are about the whole text.
    line = std::max(line, 0);
    column = std::max(column, 0);
    std::string field = "syntax";
    std::string what(absl::StripSuffix(message, "."));
    if (absl::StrContains(message, "has no field named")) {
      UnknownField(message, field, what);
      BackTo(Quoted(message, 1), line, column);
    } else if (absl::StartsWith(message, "Unknown enumeration value")) {
      UnknownValue(message, field, what);
      BackTo(Quoted(message, 0), line, column);
    } else if (absl::StrContains(message, "specified multiple times") ||
               absl::StrContains(message, "is specified along with")) {
      absl::StrAppend(&what, "; write it once");
    }
    diagnostics_.AddAt(file_, line + 1, column + 1, field, what);
  }

  // Fields that do not exist, because of AllowUnknownField.
  void AddWarning(int line, int column, const std::string& message) override {
    AddError(line, column, message);
  }

 private:
  // An unknown name is reported at the token after it: goes back to the name.
  void BackTo(absl::string_view name, int& line, int& column) const {
    size_t start = 0;
    for (int i = 0; i < line; ++i) {
      const size_t end = text_.find('\n', start);
      if (end == absl::string_view::npos) return;
      start = end + 1;
    }
    const size_t found = text_.substr(0, start + column).rfind(name);
    if (found == absl::string_view::npos) return;
    const absl::string_view before = text_.substr(0, found);
    line = static_cast<int>(std::count(before.begin(), before.end(), '\n'));
    const size_t newline = before.rfind('\n');
    column = static_cast<int>(
        newline == absl::string_view::npos ? found : found - newline - 1);
  }

  static void UnknownField(const std::string& message, std::string& field,
                           std::string& what) {
    const std::string type_name = Quoted(message, 0);
    const std::string name = Quoted(message, 1);
    std::vector<std::string> known;
    for (const Descriptor* type : ScenarioTypes()) {
      if (type->full_name() != type_name) continue;
      for (int i = 0; i < type->field_count(); ++i) {
        known.push_back(type->field(i)->name());
      }
      field = absl::StrCat(type->name(), ".", name);
    }
    what = absl::StrCat("there is no such field", Suggest(name, known));
  }

  static void UnknownValue(const std::string& message, std::string& field,
                           std::string& what) {
    const std::string value = Quoted(message, 0);
    field = Quoted(message, 1);
    std::vector<std::string> known;
    for (const Descriptor* type : ScenarioTypes()) {
      const FieldDescriptor* candidate = type->FindFieldByName(field);
      if (candidate == nullptr || candidate->enum_type() == nullptr) continue;
      for (int i = 0; i < candidate->enum_type()->value_count(); ++i) {
        const auto* known_value = candidate->enum_type()->value(i);
        if (known_value->number() != 0) known.push_back(known_value->name());
      }
    }
    what = absl::StrCat("there is no value ", value, Suggest(value, known));
  }

  absl::string_view text_;
  absl::string_view file_;
  Diagnostics& diagnostics_;
};

}  // namespace

Field Field::At(absl::string_view name, int index) const {
  Field result = *this;
  result.name_ = std::string(name);
  result.path_ = absl::StrCat(path_, path_.empty() ? "" : ".", name);
  if (index >= 0) absl::StrAppend(&result.path_, "[", index, "]");
  const FieldDescriptor* field =
      type_ == nullptr ? nullptr : type_->FindFieldByName(std::string(name));
  result.type_ = field == nullptr ? nullptr : field->message_type();
  result.tree_ = nullptr;
  if (field == nullptr || tree_ == nullptr) return result;
  // protobuf insists on an index for what is repeated, and on none for the
  // rest.
  index = field->is_repeated() ? std::max(index, 0) : -1;
  const TextFormat::ParseLocation location = tree_->GetLocation(field, index);
  if (location.line >= 0) result.location_ = location;
  if (result.type_ != nullptr) {
    result.tree_ = tree_->GetTreeForNested(field, index);
  }
  return result;
}

Field ParsedScenario::root() const {
  Field field;
  field.type_ = v1::Scenario::descriptor();
  field.tree_ = positions.get();
  field.file_ = file_name;
  if (positions != nullptr) field.location_ = {0, 0};
  return field;
}

std::string ParsedScenario::directory() const {
  const size_t slash = file_name.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : file_name.substr(0, slash);
}

void Diagnostics::Add(const Field& field, absl::string_view what) {
  AddAt(field.file_, field.location_.line + 1, field.location_.column + 1,
        field.path_, what);
}

void Diagnostics::AddAt(absl::string_view file, int line, int column,
                        absl::string_view field, absl::string_view what) {
  Entry entry = {.line = line, .column = column, .text = {}};
  if (!file.empty()) absl::StrAppend(&entry.text, file, ":");
  if (line > 0) absl::StrAppend(&entry.text, line, ":", column, ":");
  if (!entry.text.empty()) absl::StrAppend(&entry.text, " ");
  if (!field.empty()) absl::StrAppend(&entry.text, field, ": ");
  absl::StrAppend(&entry.text, what);
  entries_.push_back(std::move(entry));
}

absl::Status Diagnostics::ToStatus() const {
  if (entries_.empty()) return absl::OkStatus();
  std::vector<Entry> sorted = entries_;
  std::stable_sort(
      sorted.begin(), sorted.end(), [](const Entry& a, const Entry& b) {
        return std::pair(a.line, a.column) < std::pair(b.line, b.column);
      });
  std::vector<std::string> lines;
  for (const Entry& entry : sorted) {
    if (lines.empty() || lines.back() != entry.text) {
      lines.push_back(entry.text);
    }
  }
  return absl::InvalidArgumentError(absl::StrJoin(lines, "\n"));
}

absl::StatusOr<ParsedScenario> ParseScenario(absl::string_view text,
                                             absl::string_view file_name) {
  ParsedScenario parsed;
  parsed.file_name = std::string(file_name);
  parsed.positions = std::make_unique<TextFormat::ParseInfoTree>();
  Diagnostics diagnostics;
  Collector collector(text, file_name, diagnostics);
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&collector);
  parser.WriteLocationsTo(parsed.positions.get());
  // An unknown field is an error all the same, but as a warning it does not
  // end the parse, so that all of them are found.
  parser.AllowUnknownField(true);
  const bool ok = parser.ParseFromString(std::string(text), &parsed.scenario);
  if (!diagnostics.empty()) return diagnostics.ToStatus();
  if (!ok) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_name, ": is not a scenario in protobuf text format"));
  }
  return parsed;
}

absl::StatusOr<ParsedScenario> ParseScenarioFile(const std::string& path) {
  const ipc::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.ok()) {
    return ipc::PosixError(errno, absl::StrCat("open the scenario ", path));
  }
  std::string text;
  char buffer[65536];
  ssize_t n;
  while ((n = ipc::RetryOnEintr(
              [&] { return read(fd.get(), buffer, sizeof(buffer)); })) > 0) {
    text.append(buffer, n);
  }
  if (n < 0) {
    return ipc::PosixError(errno, absl::StrCat("read the scenario ", path));
  }
  return ParseScenario(text, path);
}

}  // namespace parley::control
