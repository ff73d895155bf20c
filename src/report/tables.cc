#include "report/tables.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <tuple>

#include "base/error.h"
#include "base/progress.h"
#include "report/text.h"

namespace molt::report {

std::string Setting::words() const {
  const auto number = [](std::int64_t value) {
    return value < 100 ? std::to_string(value) : grouped(static_cast<double>(value));
  };
  return prefill ? concat("prefill, ", number(context), " tokens")
                 : concat("decode, batch ", number(batch), ", context ", number(context));
}

std::vector<Setting> settings(const Collection& collection) {
  std::set<Setting> found;
  for (const Checkpoint& checkpoint : collection.checkpoints) {
    for (const Throughput& row : checkpoint.throughput) found.insert({row.prefill, row.batch, row.context});
  }
  return {found.begin(), found.end()};
}

const Throughput* measured(const Checkpoint& checkpoint, const Setting& setting) {
  const Throughput* last = nullptr;
  for (const Throughput& row : checkpoint.throughput) {
    if (Setting{row.prefill, row.batch, row.context} == setting) last = &row;
  }
  return last;
}

std::optional<Setting> main_setting(const Collection& collection) {
  std::optional<Setting> best;
  const auto rank = [&](const Setting& setting) {
    const auto has = [&](const Checkpoint& checkpoint) { return measured(checkpoint, setting) != nullptr; };
    const auto count = std::count_if(collection.checkpoints.begin(), collection.checkpoints.end(), has);
    return std::tuple(!setting.prefill, count, setting.context, setting.batch);
  };
  for (const Setting& setting : settings(collection)) {
    if (!best || rank(setting) > rank(*best)) best = setting;
  }
  return best;
}

std::optional<double> ratio_to_teacher(const Collection& collection, const Checkpoint& checkpoint, const Setting& setting) {
  const Throughput* own = measured(checkpoint, setting);
  if (!own || !collection.teacher()) return std::nullopt;
  for (const Throughput& row : collection.teacher()->throughput) {
    if (row.file == own->file && Setting{row.prefill, row.batch, row.context} == setting && row.ratio > 0)
      return own->ratio / row.ratio;
  }
  return std::nullopt;
}

std::string layout_words(const Checkpoint& checkpoint) {
  if (checkpoint.layout.empty()) return "";
  const std::int64_t mamba = checkpoint.mamba_layers();
  if (mamba > 0) return concat(mamba, " Mamba of ", checkpoint.layout.size());
  return concat(checkpoint.layout.size(), " attention");
}

namespace table_parts {

// A column that appears if any row has something in it.
struct Field {
  Table::Column column;
  std::function<std::string(const Checkpoint&)> text;
};

Table fill(const std::vector<const Checkpoint*>& rows, const std::vector<Field>& fields) {
  Table table;
  table.rows.resize(rows.size());
  for (const Field& field : fields) {
    std::vector<std::string> texts;
    for (const Checkpoint* row : rows) texts.push_back(field.text(*row));
    if (std::all_of(texts.begin(), texts.end(), [](const std::string& text) { return text.empty(); })) continue;
    table.columns.push_back(field.column);
    for (std::size_t i = 0; i < rows.size(); ++i) table.rows[i].push_back(std::move(texts[i]));
  }
  return table;
}

std::string name_text(const Checkpoint& checkpoint) {
  return checkpoint.status == "finished" ? checkpoint.name : concat(checkpoint.name, " (", checkpoint.status, ")");
}

std::string score_text(const Score& score) {
  return concat(fixed(100 * score.accuracy, 1), " ± ", fixed(100 * score.standard_error, 1), " %");
}

std::string loss_text(const Checkpoint& checkpoint) {
  if (!checkpoint.loss) return "";
  const double loss = *checkpoint.loss;
  return concat(fixed(loss, loss < 0.1 ? 4 : 3), checkpoint.objective.empty() ? "" : " " + objective_words(checkpoint.objective));
}

}  // namespace table_parts

Table checkpoint_table(const Collection& collection) {
  using table_parts::Field;
  std::vector<Field> fields = {
      {{"checkpoint"}, table_parts::name_text},
      {{"from"}, [](const Checkpoint& c) { return c.from; }},
      {{"layers"}, layout_words},
      {{"tokens trained", true}, [](const Checkpoint& c) { return c.tokens ? human_count(*c.tokens) : ""; }},
      {{"loss", true}, table_parts::loss_text},
  };
  for (const std::string& task : collection.tasks()) {
    fields.push_back({{task, true}, [task](const Checkpoint& c) {
                        const auto found = c.scores.find(task);
                        return found == c.scores.end() ? "" : table_parts::score_text(found->second);
                      }});
  }
  for (const std::string& text : collection.texts()) {
    fields.push_back({{concat(text, ", perplexity"), true}, [text](const Checkpoint& c) {
                        const auto found = c.perplexities.find(text);
                        if (found == c.perplexities.end()) return std::string();
                        return concat(fixed(found->second.value, 2), " ± ", fixed(found->second.standard_error, 2));
                      }});
  }
  if (const auto setting = main_setting(collection)) {
    fields.push_back({{"tokens/s", true}, [setting](const Checkpoint& c) {
                        const Throughput* row = measured(c, *setting);
                        return row ? grouped(row->median) : "";
                      }});
    fields.push_back({{"× " + collection.teacher()->name, true}, [&collection, setting](const Checkpoint& c) {
                        const auto ratio = ratio_to_teacher(collection, c, *setting);
                        return ratio ? fixed(*ratio, 2) : "";
                      }});
  }
  std::vector<const Checkpoint*> rows;
  for (const Checkpoint& checkpoint : collection.checkpoints) rows.push_back(&checkpoint);
  return table_parts::fill(rows, fields);
}

Table throughput_table(const Collection& collection) {
  std::vector<table_parts::Field> fields = {{{"tokens/s"}, [](const Checkpoint& c) { return c.name; }}};
  for (const Setting& setting : settings(collection)) {
    fields.push_back({{setting.words(), true}, [&collection, setting](const Checkpoint& c) {
                        const Throughput* row = measured(c, setting);
                        if (!row) return std::string();
                        const auto ratio = ratio_to_teacher(collection, c, setting);
                        return concat(grouped(row->median), ratio ? concat(" (× ", fixed(*ratio, 2), ")") : "");
                      }});
  }
  std::vector<const Checkpoint*> rows;
  for (const Checkpoint& checkpoint : collection.checkpoints) {
    if (!checkpoint.throughput.empty()) rows.push_back(&checkpoint);
  }
  return table_parts::fill(rows, fields);
}

std::string headline(const Collection& collection) {
  const Checkpoint* teacher = collection.teacher();
  if (!teacher || teacher->scores.empty() || teacher->mamba_layers() > 0) return "";
  const std::string task = teacher->scores.begin()->first;
  const Checkpoint* best = nullptr;
  const auto rank = [&](const Checkpoint& c) { return std::pair(c.scores.at(task).accuracy, c.mamba_layers()); };
  for (const Checkpoint& checkpoint : collection.checkpoints) {
    if (checkpoint.mamba_layers() == 0 || !checkpoint.scores.contains(task)) continue;
    if (!best || rank(checkpoint) > rank(*best)) best = &checkpoint;
  }
  if (!best) return "";
  const Score &theirs = teacher->scores.at(task), &ours = best->scores.at(task);
  std::string text =
      concat("With ", best->mamba_layers(), " of ", best->layout.size(), " layers turned into Mamba, ", best->name, " scores ",
             table_parts::score_text(ours), " on ", task, "; its teacher scores ", table_parts::score_text(theirs), ".");
  if (const auto setting = main_setting(collection)) {
    if (const auto ratio = ratio_to_teacher(collection, *best, *setting))
      text += concat(" It runs at ", fixed(*ratio, 2), " times the teacher's speed (", setting->words(), ").");
  }
  return text;
}

std::string to_markdown(const Table& table) {
  std::string head = "|", rule = "|", body;
  for (const Table::Column& column : table.columns) {
    head += " " + escape_markdown(column.title) + " |";
    rule += column.number ? " ---: |" : " --- |";
  }
  for (const auto& row : table.rows) {
    body += "|";
    for (const std::string& cell : row) body += " " + escape_markdown(cell) + " |";
    body += "\n";
  }
  return head + "\n" + rule + "\n" + body;
}

std::string to_html(const Table& table) {
  const auto cell = [&](const char* tag, std::size_t column, const std::string& text) {
    return concat("<", tag, table.columns[column].number ? " class=\"number\">" : ">", escape_html(text), "</", tag, ">");
  };
  std::string html = "<div class=\"wide\"><table>\n<thead><tr>";
  for (std::size_t i = 0; i < table.columns.size(); ++i) html += cell("th", i, table.columns[i].title);
  html += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) html += cell(i == 0 ? "th" : "td", i, row[i]);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

}  // namespace molt::report
