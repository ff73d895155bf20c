// Columns of text for a terminal.
#pragma once
#include <string>
#include <vector>

namespace molt {

// One line a row, columns as wide as their widest cell, right-aligned but for the first. Every row has as many cells as the
// first.
std::string text_table(const std::vector<std::vector<std::string>>& rows);

// A number with a fixed count of digits behind the point; a whole number in groups of three: "204,800".
std::string fixed_text(double value, int digits);
std::string grouped_text(double value);

}  // namespace molt
