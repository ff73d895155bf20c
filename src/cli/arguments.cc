#include "cli/arguments.h"

#include <c10/util/Exception.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "base/config.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/version.h"

namespace molt {
namespace {

constexpr int kUserMistake = 2, kBug = 1, kSignal = 128;

// Fills a paragraph to 80 columns with a hanging indent.
class Formatter : public CLI::Formatter {
 public:
  Formatter() { column_width(28); }
  std::string make_option(const CLI::Option* option, bool is_positional) const override {
    std::string left = "  " + make_option_name(option, is_positional) + make_option_opts(option);
    return fill(left, make_option_desc(option));
  }
  std::string make_subcommand(const CLI::App* command) const override {
    return fill("  " + command->get_name(), command->get_description());
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_type_size() == 0 || option->get_positional()) return "";
    std::string text = option->get_type_name().empty() ? "" : " " + option->get_type_name();
    return text;
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    std::string text = option->get_description();
    if (!option->get_default_str().empty()) text += " [" + option->get_default_str() + "]";
    if (option->get_required() && !option->get_positional()) text += " (required)";
    return text;
  }

 private:
  static std::string fill(const std::string& left, const std::string& text) {
    constexpr std::size_t indent = 28, width = 80;
    std::string out = left, word;
    std::size_t column = left.size();
    if (column + 2 > indent) {
      out += "\n";
      column = 0;
    }
    out += std::string(indent - column, ' ');
    column = indent;
    std::istringstream words(text);
    while (words >> word) {
      if (column > indent && column + 1 + word.size() > width) {
        out += "\n" + std::string(indent, ' ');
        column = indent;
      } else if (column > indent) {
        out += " ";
        ++column;
      }
      out += word;
      column += word.size();
    }
    return out + "\n";
  }
};

// CLI11 takes the nearest number for one that does not fit.
std::string check_range(const std::string& given) {
  errno = 0;
  std::strtoll(given.c_str(), nullptr, 0);
  return errno == ERANGE ? concat("found \"", given, "\", expected a number that fits into 64 bits") : "";
}

template <class T>
CLI::Option* add(CLI::App& app, const std::string& name, T& value, const std::string& meaning, const char* type, bool required) {
  auto* option = app.add_option(name, value, meaning)->type_name(type)->required(required);
  if (!required) option->capture_default_str();
  return option;
}

}  // namespace

void Arguments::positional(const std::string& name, std::string& value, const std::string& meaning, bool required) {
  app_.add_option(name, value, meaning)->required(required)->type_name("");
}
void Arguments::positional(const std::string& name, std::vector<std::string>& values, const std::string& meaning) {
  app_.add_option(name, values, meaning)->required()->type_name("");
}
void Arguments::option(const std::string& name, std::string& value, const std::string& meaning, bool required) {
  add(app_, name, value, meaning, "TEXT", required);
}
void Arguments::option(const std::string& name, std::int64_t& value, const std::string& meaning, bool required) {
  add(app_, name, value, meaning, "N", required)->check(check_range);
}
void Arguments::option(const std::string& name, double& value, const std::string& meaning) {
  add(app_, name, value, meaning, "X", false);
}
void Arguments::option(const std::string& name, std::optional<std::int64_t>& value, const std::string& meaning) {
  app_.add_option(name, value, meaning)->type_name("N")->check(check_range);
}
void Arguments::option(const std::string& name, std::vector<std::string>& values, const std::string& meaning) {
  app_.add_option(name, values, meaning)->type_name("TEXT")->take_all();
}
void Arguments::option(const std::string& name, std::vector<std::int64_t>& values, const std::string& meaning) {
  app_.add_option(name, values, meaning)->type_name("N,...")->delimiter(',')->capture_default_str()->check(check_range);
}
void Arguments::choice(const std::string& name, std::string& value, const std::vector<std::string>& words,
                       const std::string& meaning, bool required) {
  std::string type;
  for (const auto& word : words) type += (type.empty() ? "" : "|") + word;
  add(app_, name, value, meaning, type.c_str(), required)->check([words, type](const std::string& given) {
    for (const auto& word : words)
      if (word == given) return std::string();
    return concat("found \"", given, "\", expected ", type);
  });
}
void Arguments::flag(const std::string& name, bool& value, const std::string& meaning) {
  app_.add_flag(name, value, meaning);
}

namespace arguments_detail {

// CLI11 says "Could not convert: --batch = x".
std::string in_our_words(const CLI::Error& error) {
  const std::string text = error.what(), start = "Could not convert: ";
  const std::size_t equals = text.find(" = ");
  if (!text.starts_with(start) || equals == std::string::npos) return text;
  return concat(text.substr(start.size(), equals - start.size()), ": found \"", text.substr(equals + 3), "\", expected a number");
}

// LibTorch's reason without what is in the way of one line: on a GPU what else holds memory and which of its settings to try.
std::string out_of_memory(const c10::OutOfMemoryError& error) {
  std::string reason = error.what_without_backtrace();
  for (const char* more : {"\n", " Process ", " Including ", " Of the allocated "}) reason = reason.substr(0, reason.find(more));
  while (reason.ends_with('.')) reason.pop_back();
  return concat(reason, "; less is needed with a smaller --batch or --context where there is one, and in training with fewer ",
                "micro_batch_tokens or recompute: block");
}

std::string version_line() {
  const auto versions = program_versions();
  return concat("molt ", versions.at("molt"), " (", versions.at("revision"), ")");
}

}  // namespace arguments_detail

int run_program(int argc, char** argv, const std::vector<Command>& commands) {
  CLI::App app("Turns attention transformers into Mamba hybrids by distillation, then evaluates and runs them.", "molt");
  app.formatter(std::make_shared<Formatter>());
  app.set_version_flag("--version", arguments_detail::version_line());
  app.require_subcommand(1);
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    const std::vector<CLI::App*> commands = failed->get_subcommands();  // that were recognized
    return concat("error: ", arguments_detail::in_our_words(error), " (molt ",
                  commands.empty() ? "" : commands.front()->get_name() + " ", "--help shows what is accepted)\n");
  });

  bool quiet = false;
  std::function<int()> chosen;
  for (const auto& command : commands) {
    auto* sub = app.add_subcommand(command.name, command.summary);
    Arguments arguments(*sub);
    auto run = command.declare(arguments);
    arguments.flag("--quiet", quiet, "Only warnings and errors on standard error");
    sub->callback([&chosen, run] { chosen = run; });
  }

  if (argc <= 1) {
    std::cerr << app.help();
    return kUserMistake;
  }
  if (argv[1][0] != '-') {
    std::vector<std::string> names;
    for (const auto& command : commands) names.push_back(command.name);
    if (std::find(names.begin(), names.end(), argv[1]) == names.end()) {
      const std::string near = nearest(argv[1], names);
      log_error(concat("unknown command \"", argv[1], "\"", near.empty() ? "" : concat(" (did you mean \"", near, "\"?)"),
                       "; molt --help lists them"));
      return kUserMistake;
    }
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUserMistake;
  }
  if (quiet) set_log_level(LogLevel::warning);
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond `ulimit -f` is a failed write, whose message names it

  try {
    const int code = chosen();
    std::cout.flush();
    require(std::cout || interrupt_signal() == SIGPIPE, "standard output: cannot write all of it, expected a disk with room");
    return code;
  } catch (const Interrupted& interrupted) {
    log_warning(interrupted.what());
    return kSignal + interrupted.signal();
  } catch (const UserError& error) {
    log_error(error.what());
    return kUserMistake;
  } catch (const std::filesystem::filesystem_error& error) {
    log_error(concat(error.path1().string(), ": ", error.code().message()));
    return kUserMistake;
  } catch (const c10::OutOfMemoryError& error) {
    log_error(arguments_detail::out_of_memory(error));
    return kUserMistake;
  } catch (const std::bad_alloc&) {
    log_error("out of memory");
    return kUserMistake;
  } catch (const std::exception& error) {
    std::istringstream lines(concat("internal error: ", error.what()));  // LibTorch's messages have several
    for (std::string line; std::getline(lines, line);) log_error(line);
    return kBug;
  }
}

}  // namespace molt
