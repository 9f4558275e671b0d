// What stands around a measurement: machine, build, libraries, environment. Written beside every CSV.
#pragma once

#include <string>
#include <vector>

#include "attn/core/result.hpp"
#include "attn/measure/machine.hpp"
#include "attn/record/schema.hpp"

namespace attn {

// Pretty-printed JSON. `asked`: what the program was asked for, as JSON, for who goes on with it. `columns` are those of the CSV that it stands beside, of this version. What cannot be read is the text
// "unsupported: why", never 0.
std::string context_json(const std::vector<std::string>& command_line, const std::vector<Peak>& peaks,
                         const std::vector<ColumnInfo>& columns, int version, const std::string& asked);
template <class Row>
std::string context_json(const std::vector<std::string>& command_line, const std::vector<Peak>& peaks, const Schema<Row>& schema,
                         const std::string& asked) {
  return context_json(command_line, peaks, schema.infos(), schema.version(), asked);
}

// The peaks in the context of an earlier sweep; refused where it is of another machine.
Result<std::vector<Peak>> peaks_of(const std::string& path);

std::string version_text();   // what --version prints: build, commit and oneDNN, in two lines
std::string source_commit();  // git commit, "-dirty" where the source tree had changes when built
std::string host_name();

// A command line that a shell reads back.
std::string shell_quoted(const std::vector<std::string>& arguments);

// Where the context of a CSV lies: a.csv has a.context.json.
std::string context_path(const std::string& csv);

}  // namespace attn
