// Drawing with gnuplot, called as a program: a figure is a script with its data inside.
#pragma once
#include <string>
#include <vector>

namespace molt::report {

// A colour by its role. Figures use the light one; in a page it follows the reader's theme.
struct Colour {
  const char* name;   // of the CSS variable
  const char* light;  // "#rrggbb"
  const char* dark;
};
inline constexpr Colour ink{"ink", "#24292f", "#e6edf3"}, faint{"faint", "#d8dee4", "#30363d"},
    muted{"muted", "#6e7781", "#9198a1"};
// Told apart by colour-blind readers as well (Okabe and Ito 2008), lighter on dark ground.
inline constexpr Colour blue{"blue", "#0072b2", "#4aa8e0"}, orange{"orange", "#e69f00", "#e69f00"},
    sky{"sky", "#56b4e9", "#9ad4f5"}, red{"red", "#d55e00", "#ff8a4c"}, green{"green", "#009e73", "#35c79a"},
    pink{"pink", "#cc79a7", "#e39cc4"};
inline constexpr Colour palette[] = {blue, red, green, pink, orange, sky};
inline constexpr Colour all_colours[] = {ink, faint, muted, blue, orange, sky, red, green, pink};

struct Drawing {
  std::string name;   // of its files and ids: lower-case letters, digits, hyphens
  std::string title;  // what it shows, in one line
  int width = 760, height = 440;
  std::string commands;  // ends with one plot command
};

struct Figure {
  std::string name, title;
  std::string script;    // draws name.svg and name.png in the folder where gnuplot runs it
  std::string svg, png;  // the files' contents
};

// UserError when there is no gnuplot, or none that can write SVG and PNG.
Figure draw(const Drawing& drawing);

// A text as a gnuplot string in which nothing is special; line ends and other control characters become blanks.
std::string quoted(const std::string& text);

// The <svg> element of a figure, for a page with other figures: colours are CSS variables, ids are its own, the ground is clear.
std::string inline_svg(const Figure& figure);

}  // namespace molt::report
