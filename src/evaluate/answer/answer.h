// Final answers: found at the end of a worked solution, and compared as mathematics, in LaTeX or plain text.
#pragma once
#include <string>
#include <string_view>

namespace molt {

// What a text says behind its reasoning: all after the last "</think>". A text whose reasoning is not closed says nothing;
// `opened` means that the prompt has opened it already, as some chat templates do.
std::string strip_thinking(std::string_view text, bool opened = false);

// The final answer of a solution, "" when there is none. The first of these that the text holds counts, its last occurrence:
// \boxed{…} (braces may nest; \fbox too), what follows "####", what follows "answer is" or "answer:" up to the sentence's end,
// the last number.
std::string extract_answer(std::string_view text);

// The content of the last \boxed{…} or \fbox{…} with balanced braces, "" when there is none.
std::string boxed_answer(std::string_view text);

// The choice "A" to "Z" that a text settles on: its final answer where that is "B", "(B)" or "B. …", else the last "(B)"; ""
// when there is none.
std::string extract_choice(std::string_view text);

// The last number of a text without commas and leading zeros ("1,234.50" is "1234.5"), "" when there is none.
std::string last_number(const std::string& text);

// Whether two final answers are the same mathematically:
//   numbers        1,234 = 1234, 0.5 = 1/2 = \frac12, 1\frac{1}{2} = 3/2, 1.5e3 = 1.5 \times 10^3, 0.\overline{3} = 1/3; digits
//                  count: 0.333 is not 1/3, and no whole number equals its neighbour
//   expressions    equal at fixed sample points, to within bounds of the rounding errors; i, e and \pi are the constants
//   lists and sets whatever the order; {1,2} = 1, 2; x = 1 \pm 2 lists two
//   tuples         (1,2): in order; intervals [1,2), unions of them, and inequalities, which say the same
//   equations      equal up to a factor; "x = 5" is the same as "5"
//   units          may be missing on one side, but not differ: 5 cm = 5, 5 cm is not 5 m; 50\% = 50 = 0.5; degrees are a unit
//   matrices       by element; numbers in a base (52_8) by digits and base
//   text           without case, \text{} and outer parentheses: \text{(B)} = B
// An empty answer equals nothing. Any text ends soon: beyond 4,000 bytes, 1,000 tokens or 64 levels only equal text is equal.
bool answers_equal(std::string_view a, std::string_view b);

}  // namespace molt
