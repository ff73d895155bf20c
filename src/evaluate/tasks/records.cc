#include "evaluate/tasks/records.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/trim.h"

namespace molt::tasks {
namespace records {

// One row from `at` on, which moves behind it. A field in quotes may hold commas, line ends and, doubled, quotes.
std::vector<std::string> next_row(std::string_view text, std::size_t& at, std::int64_t& line, const fs::path& path) {
  std::vector<std::string> row(1);
  bool quoted = false;
  const std::int64_t first = line;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    line += c == '\n';
    if (quoted) {
      if (c != '"') {
        row.back() += c;
      } else if (at + 1 < text.size() && text[at + 1] == '"') {
        row.back() += text[++at];
      } else {
        quoted = false;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',') {
      row.emplace_back();
    } else if (c == '\n') {
      ++at;
      break;
    } else if (c != '\r') {
      row.back() += c;
    }
  }
  require(!quoted, path.string(), ":", first, ": found a quote that nothing closes");
  return row;
}

std::int64_t each_row(const fs::path& path, std::int64_t limit, const UseRecord& use) {
  const std::string text = read_file(path);
  std::size_t at = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;
  std::int64_t line = 1, index = 0;
  const std::vector<std::string> names = next_row(text, at, line, path);
  while (at < text.size() && (limit == 0 || index < limit)) {
    const std::string place = concat(path.string(), ":", line);
    const std::vector<std::string> row = next_row(text, at, line, path);
    if (row.size() == 1 && row[0].empty()) continue;
    require(row.size() == names.size(), place, ": found ", row.size(), " fields, expected ", names.size());
    Json record = Json::object();
    for (std::size_t i = 0; i < row.size(); ++i) record[names[i]] = row[i];
    use(record, place, index++);
  }
  return index;
}

std::int64_t each_line(const fs::path& path, std::int64_t limit, const UseRecord& use) {
  LineReader reader(path);
  std::int64_t index = 0;
  for (std::string_view line; (limit == 0 || index < limit) && reader.next(line);) {
    if (is_blank(line)) continue;
    const Json object = parse_json(line, reader.place());
    require(object.is_object(), reader.place(), ": found no object, expected one a line");
    use(object, reader.place(), index++);
  }
  return index;
}

}  // namespace records

void for_each_record(const fs::path& path, std::int64_t limit, const UseRecord& use) {
  const std::int64_t count =
      path.extension() == ".csv" ? records::each_row(path, limit, use) : records::each_line(path, limit, use);
  require(count > 0, path.string(), ": the file holds no items");
}

}  // namespace molt::tasks
