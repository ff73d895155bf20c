#include "formats/carried_files.h"

namespace molt {

namespace carried_files {

constexpr const char* names[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    // By most licences of weights, what is made of them goes with these.
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "NOTICE.txt",
    "USE_POLICY.md",
};

// Chat templates by name, beside the one that serves by default.
constexpr const char* templates = "additional_chat_templates";

}  // namespace carried_files

void carry_over(const fs::path& from, const fs::path& to) {
  for (const char* name : carried_files::names) {
    if (const fs::path source = from / name; fs::exists(source)) write_file(to / name, read_file(source));
  }
  if (!fs::is_directory(from / carried_files::templates)) return;
  fs::create_directories(to / carried_files::templates);
  for (const auto& entry : fs::directory_iterator(from / carried_files::templates)) {
    if (entry.path().extension() != ".jinja") continue;
    write_file(to / carried_files::templates / entry.path().filename(), read_file(entry.path()));
  }
}

}  // namespace molt
