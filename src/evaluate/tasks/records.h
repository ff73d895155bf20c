// A task's file, record by record.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "base/json.h"

namespace molt::tasks {

// The objects of a JSONL file, or the rows of a CSV file (RFC 4180, the first row has the names; all values are strings), at most
// `limit` (0: all). `place` names the record in errors. UserError for a file without records.
using UseRecord = std::function<void(const Json& record, const std::string& place, std::int64_t index)>;
void for_each_record(const fs::path& path, std::int64_t limit, const UseRecord& use);

}  // namespace molt::tasks
