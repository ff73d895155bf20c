#include "report/samples_page.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/counted.h"
#include "base/error.h"
#include "base/json.h"
#include "report/page_head.h"
#include "report/text.h"

namespace molt::report {
namespace sample_pages {

struct Line {
  std::int64_t sample;
  bool correct;
  std::string_view text;
  std::string place;
};

struct Item {
  std::string id;
  std::vector<Line> lines;
};

std::vector<Item> items_of(LineReader& reader) {
  std::vector<Item> items;
  std::map<std::string, std::size_t> known;
  for (std::string_view text; reader.next(text);) {
    const Json sample = parse_json(text, reader.place());
    const auto id = get<std::string>(sample, "id", reader.place());
    const auto [at, fresh] = known.emplace(id, items.size());
    if (fresh) items.push_back({id, {}});
    items[at->second].lines.push_back({get_or<std::int64_t>(sample, "sample", 0, reader.place()),
                                       get<bool>(sample, "correct", reader.place()), text, reader.place()});
  }
  for (Item& item : items)
    std::sort(item.lines.begin(), item.lines.end(), [](const Line& a, const Line& b) { return a.sample < b.sample; });
  return items;
}

std::string block(const std::string& text) {
  return concat("<pre>", escape_html(text), "</pre>\n");
}

std::string item_html(const Item& item) {
  const auto right = std::count_if(item.lines.begin(), item.lines.end(), [](const Line& line) { return line.correct; });
  const Json first = parse_json(item.lines.front().text, item.lines.front().place);
  const auto words = [](const Json& sample, const char* key) { return get_or<std::string>(sample, key, "", "samples.jsonl"); };
  std::string html = concat("<details>\n<summary>", right > 0 ? "✓ " : "✗ ", escape_html(item.id), " <span class=\"note\">",
                            right, " of ", item.lines.size(), " right, expected ", escape_html(words(first, "expected")),
                            "</span></summary>\n", block(words(first, "prompt")));
  for (const Line& line : item.lines) {
    const Json sample = parse_json(line.text, line.place);
    const std::string extracted = words(sample, "extracted");
    html +=
        concat("<details", item.lines.size() == 1 ? " open" : "", ">\n<summary>", line.correct ? "✓" : "✗", " sample ",
               line.sample, " <span class=\"note\">", extracted.empty() ? "no answer found" : "answers " + escape_html(extracted),
               ", ", counted(get_or<std::int64_t>(sample, "tokens", 0, line.place), "token"), "</span></summary>\n",
               block(words(sample, "completion")), "</details>\n");
  }
  return html + "</details>\n";
}

std::string score_words(const fs::path& file) {
  if (!fs::exists(file)) return "";
  const Json score = read_json(file);
  const auto value = [&](const Json& of) {
    return concat(percent(get<double>(of, "accuracy", file.string())), " ± ",
                  fixed(100 * get<double>(of, "standard_error", file.string()), 1));
  };
  std::string text = value(score);
  for (const auto& [key, name] : {std::pair{"pass_at", "pass@"}, std::pair{"majority_at", "maj@"}}) {
    if (!score.contains(key)) continue;
    std::map<std::int64_t, std::string> by_k;
    for (const auto& [k, figure] : score[key].items()) by_k[std::stoll(k)] = value(figure);
    for (const auto& [k, figure] : by_k)
      if (k > 1) text += concat(", ", name, k, " ", figure);
  }
  return text;
}

}  // namespace sample_pages

fs::path write_samples_page(const fs::path& folder) {
  using namespace sample_pages;
  const Json evaluation = read_json(folder / "evaluation.json");
  const std::string place = (folder / "evaluation.json").string();
  LineReader reader(folder / "samples.jsonl");
  const std::vector<Item> items = items_of(reader);
  const fs::path page = folder / "samples.html";
  AtomicFile file(page);
  file.write(page_head(get<std::string>(evaluation, "task", place)));
  file.write(concat("<p class=\"note\">", escape_html(get<std::string>(evaluation, "model", place)), "</p>\n<p class=\"lead\">",
                    escape_html(score_words(folder / "score.json")), "</p>\n"));
  for (const Item& item : items) file.write(item_html(item));
  file.write(page_end);
  file.commit();
  return page;
}

}  // namespace molt::report
