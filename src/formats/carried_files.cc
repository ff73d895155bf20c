#include "formats/carried_files.h"

namespace molt {

namespace carried_files {

constexpr const char* names[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
};

}  // namespace carried_files

void carry_over(const fs::path& from, const fs::path& to) {
  for (const char* name : carried_files::names) {
    if (const fs::path source = from / name; fs::exists(source)) write_file(to / name, read_file(source));
  }
}

}  // namespace molt
