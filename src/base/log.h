// Messages for people, on standard error; results go to standard output. A live progress line is redrawn below them.
#pragma once
#include <string>

namespace molt {

enum class LogLevel { debug, info, warning, error };

// Messages below this level are dropped; info at the start. `--quiet` sets warning.
void set_log_level(LogLevel level);
LogLevel log_level();

void log_debug(const std::string& message);
void log_info(const std::string& message);
void log_warning(const std::string& message);
void log_error(const std::string& message);

}  // namespace molt
