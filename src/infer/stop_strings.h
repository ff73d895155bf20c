// Text that ends before the first of some strings, passed on as soon as it cannot be part of one.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace molt {

class StopStrings {
 public:
  // None of them empty.
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Takes more text (whole UTF-8) and returns what may be passed on now (whole UTF-8). After a stop string was met, nothing more
  // is.
  std::string push(std::string_view text);
  // What was held back, when no more text comes.
  std::string finish();
  bool met() const { return met_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool met_ = false;
};

}  // namespace molt
