#include "base/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>

#include <cstdio>
#include <memory>
#include <mutex>
#include <string_view>

#include "base/console.h"

namespace molt {

namespace log_detail {

// A message may quote files of others: line ends and what terminals obey (C0, DEL, C1 in UTF-8) are spelled out.
std::string visible(std::string_view message) {
  std::string text;
  for (std::size_t i = 0; i < message.size(); ++i) {
    const auto byte = static_cast<unsigned char>(message[i]);
    const bool is_pair = byte == 0xC2 && i + 1 < message.size() && static_cast<unsigned char>(message[i + 1]) < 0xA0;
    char spelled[8];
    if (byte == '\n') {
      text += "\\n";
    } else if (byte < 0x20 || byte == 0x7F || is_pair) {
      std::snprintf(spelled, sizeof spelled, "\\x%02x", is_pair ? static_cast<unsigned char>(message[++i]) : byte);
      text += spelled;
    } else {
      text += message[i];
    }
  }
  return text;
}

class ConsoleSink final : public spdlog::sinks::base_sink<std::mutex> {
  void sink_it_(const spdlog::details::log_msg& message) override {
    console::print_line(prefix(message.level) + visible({message.payload.data(), message.payload.size()}));
  }
  void flush_() override {}

  // Messages of every day come bare; what needs attention says so, in colour where there is one.
  static std::string prefix(spdlog::level::level_enum level) {
    const bool colours = console::has_colours();
    switch (level) {
      case spdlog::level::debug:
        return colours ? "\x1b[2mdebug:\x1b[0m " : "debug: ";
      case spdlog::level::warn:
        return colours ? "\x1b[1;33mwarning:\x1b[0m " : "warning: ";
      case spdlog::level::err:
        return colours ? "\x1b[1;31merror:\x1b[0m " : "error: ";
      default:
        return "";
    }
  }
};

// Never destroyed, so that destructors of other statics may still log.
spdlog::logger& logger() {
  static auto* logger = new spdlog::logger("molt", std::make_shared<ConsoleSink>());
  return *logger;
}

}  // namespace log_detail

void set_log_level(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return log_detail::logger().set_level(spdlog::level::debug);
    case LogLevel::info:
      return log_detail::logger().set_level(spdlog::level::info);
    case LogLevel::warning:
      return log_detail::logger().set_level(spdlog::level::warn);
    case LogLevel::error:
      return log_detail::logger().set_level(spdlog::level::err);
  }
}

LogLevel log_level() {
  switch (log_detail::logger().level()) {
    case spdlog::level::debug:
      return LogLevel::debug;
    case spdlog::level::warn:
      return LogLevel::warning;
    case spdlog::level::err:
      return LogLevel::error;
    default:
      return LogLevel::info;
  }
}

void log_debug(const std::string& message) {
  log_detail::logger().debug(spdlog::string_view_t(message));
}
void log_info(const std::string& message) {
  log_detail::logger().info(spdlog::string_view_t(message));
}
void log_warning(const std::string& message) {
  log_detail::logger().warn(spdlog::string_view_t(message));
}
void log_error(const std::string& message) {
  log_detail::logger().error(spdlog::string_view_t(message));
}

}  // namespace molt
