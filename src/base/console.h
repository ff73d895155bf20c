// Standard error as log.cc and progress.cc share it: ordinary lines scroll by above one live line that is redrawn in place.
#pragma once
#include <string_view>

namespace molt::console {

// Standard error is a terminal that can move its cursor.
bool is_terminal();
// Colours are welcome: a terminal, and NO_COLOR is not set (no-color.org).
bool has_colours();

// Prints one whole line; a live line is wiped before and drawn again below.
void print_line(std::string_view line);

// Draws `text`, cut to the terminal's width, as the live line in place of the one before. Only for terminals.
void set_live(std::string_view text);
// Wipes the live line.
void clear_live();

}  // namespace molt::console
