// The single files that collect() puts together. Each function's errors name the file and the place.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "report/collect.h"

namespace molt::report {

// A text from outside the files (a folder's name) as valid UTF-8.
std::string valid_text(const std::string& text);

// metrics.jsonl and events.jsonl of a training run, tokens counted from `offset` on, thinned to a few hundred points.
Curve read_curve(const fs::path& run, const std::string& name, double offset);

// Whether a file is a ranking's: a JSON object with "method".
bool is_ranking(const fs::path& file);
LayerRanking read_ranking(const fs::path& file, const std::string& name);

// An object with "perplexity" and "standard_error", that of its logarithm.
Perplexity read_perplexity(const Json& value, const std::string& place);
// An object with "accuracy", "standard_error" and "items".
Score read_score(const Json& value, const std::string& place);

// Of samples.jsonl the correct one with the shortest problem, or the shortest of the wrong ones; none from an empty file.
std::optional<Sample> read_sample(const fs::path& file, const std::string& task);

// The rows of a throughput file with the model that each belongs to, as it was named on the command line.
std::vector<std::pair<std::string, Throughput>> read_throughput(const fs::path& file, std::int64_t number);

// The letters of a Hugging Face folder's layers; empty when it has no config.json.
std::vector<std::string> read_layout(const fs::path& folder);

// The export of the newest checkpoint of a training run; empty when there is none.
fs::path newest_export(const fs::path& run);

}  // namespace molt::report
