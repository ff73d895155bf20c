// What a user would be told.
#pragma once
#include <string>

#include "base/error.h"

namespace molt {

// The message of the UserError that `action` throws, "" when it throws none.
template <class Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

}  // namespace molt
