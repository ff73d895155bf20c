// Words and numbers as a report writes them.
#pragma once
#include <cstdint>
#include <string>

namespace molt::report {

// Text for HTML, in elements and in quoted attributes. Control characters other than line ends and tabs become U+FFFD.
std::string escape_html(const std::string& text);
// Text for one cell of a Markdown table.
std::string escape_markdown(const std::string& text);
// At most `most` characters (code points), with "…" in place of what is cut off at the end.
std::string shortened(const std::string& text, std::size_t most);
// How many characters (code points) a text has.
std::size_t length(const std::string& text);
// A name for files and ids: "mmr 4/SFT" -> "mmr-4-sft"; "x" when nothing is left.
std::string slug(const std::string& text);

std::string fixed(double value, int digits);  // "3.14"
std::string grouped(double value);            // 12345.6 -> "12,346"; below 100 with one digit
std::string percent(double fraction);         // 0.9525 -> "95.3 %"

// "reverse_kl" -> "reverse KL"; unknown words as they are.
std::string objective_words(const std::string& objective);

}  // namespace molt::report
