#include "report/page.h"

#include <algorithm>

#include "base/error.h"
#include "report/page_head.h"
#include "report/ranking_tables.h"
#include "report/tables.h"
#include "report/text.h"

namespace molt::report {

namespace page_parts {

constexpr const char* ranking_note =
    "Place, least important first, and the score with its standard error. Correlations are over the layers in both rankings; "
    "first half: how many layers both put into it.";

std::string section(const char* title, const std::vector<Figure>& figures) {
  std::string html;
  for (const Figure& figure : figures)
    html += concat("<figure>\n", inline_svg(figure), "<figcaption>", escape_html(figure.title), "</figcaption>\n</figure>\n");
  return html.empty() ? "" : concat("<h2>", title, "</h2>\n", html);
}

std::string throughput_note(const Collection& collection) {
  const auto setting = main_setting(collection);
  return setting ? concat("tokens/s: ", setting->words(), ", median of the runs.") : "";
}

// The hybrid with the best score that has a sample; else any checkpoint that has one.
const Checkpoint* sampled(const Collection& collection) {
  const Checkpoint* best = nullptr;
  const auto rank = [](const Checkpoint& checkpoint) {
    const auto score = checkpoint.scores.find(checkpoint.sample->task);
    return std::pair(checkpoint.mamba_layers() > 0, score == checkpoint.scores.end() ? 0.0 : score->second.accuracy);
  };
  for (const Checkpoint& checkpoint : collection.checkpoints) {
    if (checkpoint.sample && (!best || rank(checkpoint) > rank(*best))) best = &checkpoint;
  }
  return best;
}

std::string answer_words(const Checkpoint& checkpoint) {
  return concat(checkpoint.name, checkpoint.sample->correct ? " answers, correctly" : " answers, wrongly");
}

std::string sample_section(const Collection& collection) {
  const Checkpoint* checkpoint = sampled(collection);
  if (!checkpoint) return "";
  constexpr std::size_t most = 6000;
  const Sample& sample = *checkpoint->sample;
  const auto part = [](const std::string& title, const std::string& text) {
    return concat("<div class=\"note\">", escape_html(title), "</div>\n<pre>", escape_html(shortened(text, most)), "</pre>\n");
  };
  return concat("<h2>A problem and its answer</h2>\n", part("Problem (" + sample.task + ")", sample.prompt),
                part(answer_words(*checkpoint), sample.completion), part("Expected", sample.expected));
}

// A block that no line of the text can end.
std::string markdown_block(const std::string& text) {
  std::size_t run = 0, longest = 2;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(longest + 1, '`');
  return concat(fence, "\n", text, text.ends_with('\n') ? "" : "\n", fence, "\n");
}

}  // namespace page_parts

std::string html_page(const Collection& collection, const Figures& figures) {
  using namespace page_parts;
  const std::string lead = headline(collection), note = throughput_note(collection);
  std::string html = page_head(collection.title);
  if (!lead.empty()) html += concat("<p class=\"lead\">", escape_html(lead), "</p>\n");
  if (!collection.checkpoints.empty()) html += "<h2>Checkpoints</h2>\n" + to_html(checkpoint_table(collection));
  if (!note.empty()) html += concat("<p class=\"note\">", escape_html(note), "</p>\n");
  html += section("Score and throughput", figures.frontier);
  html += section("Layouts", figures.layouts);
  html += section("Losses", figures.losses);
  html += section("Importance of layers", figures.importance);
  if (collection.rankings.size() > 1) {
    html += concat("<h2>Rankings side by side</h2>\n", to_html(places_table(collection)), "<p class=\"note\">", ranking_note,
                   "</p>\n", to_html(agreement_table(collection)));
  }
  if (settings(collection).size() > 1) html += "<h2>Throughput</h2>\n" + to_html(throughput_table(collection));
  html += sample_section(collection);
  return html + page_end;
}

std::string markdown_page(const Collection& collection, const Figures& figures) {
  using namespace page_parts;
  std::string text = concat("# ", escape_markdown(collection.title), "\n\n");
  if (const std::string lead = headline(collection); !lead.empty()) text += escape_markdown(lead) + "\n\n";
  if (!collection.checkpoints.empty()) text += to_markdown(checkpoint_table(collection)) + "\n";
  if (const std::string note = throughput_note(collection); !note.empty()) text += escape_markdown(note) + "\n\n";
  for (const Figure* figure : figures.all())
    text += concat("![", escape_markdown(figure->title), "](figures/", figure->name, ".svg)\n\n");
  if (collection.rankings.size() > 1) {
    text += concat("## Rankings side by side\n\n", to_markdown(places_table(collection)), "\n", ranking_note, "\n\n",
                   to_markdown(agreement_table(collection)), "\n");
  }
  if (settings(collection).size() > 1) text += concat("## Throughput\n\n", to_markdown(throughput_table(collection)), "\n");
  if (const Checkpoint* checkpoint = sampled(collection)) {
    const Sample& sample = *checkpoint->sample;
    text +=
        concat("## A problem and its answer\n\n", markdown_block(sample.prompt), "\n", escape_markdown(answer_words(*checkpoint)),
               ":\n\n", markdown_block(sample.completion), "\nExpected:\n\n", markdown_block(sample.expected));
  }
  return text;
}

}  // namespace molt::report
