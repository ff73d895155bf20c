// The figures of a report as tables, which the page and the Markdown file both show.
#pragma once
#include <compare>
#include <optional>
#include <string>
#include <vector>

#include "report/collect.h"

namespace molt::report {

struct Table {
  struct Column {
    std::string title;
    bool number = false;  // set right
  };
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;
};

// One work of a benchmark: all sequences of a batch, each with a context of so many tokens.
struct Setting {
  bool prefill = false;
  std::int64_t batch = 1, context = 0;
  auto operator<=>(const Setting&) const = default;
  std::string words() const;  // "decode, batch 8, context 8,192"
};

// Every setting that was measured, decoding before prefill, small batches and short contexts first.
std::vector<Setting> settings(const Collection& collection);
// The one that stands for all: decoding, measured for the most checkpoints, and of these the longest context, the largest batch.
std::optional<Setting> main_setting(const Collection& collection);
// The last measurement of a checkpoint in a setting; null when there is none.
const Throughput* measured(const Checkpoint& checkpoint, const Setting& setting);
// Its rate over the teacher's, from a benchmark that had both.
std::optional<double> ratio_to_teacher(const Collection& collection, const Checkpoint& checkpoint, const Setting& setting);

// "3 Mamba of 12", "12 attention".
std::string layout_words(const Checkpoint& checkpoint);

// One row a checkpoint. Columns without any value are left out.
Table checkpoint_table(const Collection& collection);
// Every setting a column, one row a checkpoint that was measured.
Table throughput_table(const Collection& collection);
// The best hybrid beside its teacher in a sentence; empty when there is none with scores.
std::string headline(const Collection& collection);

std::string to_markdown(const Table& table);
std::string to_html(const Table& table);

}  // namespace molt::report
