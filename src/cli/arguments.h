// What a command accepts, declared in its own file without the weight of the parsing library.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace molt {

class Arguments {
 public:
  explicit Arguments(CLI::App& app) : app_(app) {}

  // "MODEL": a positional argument. Required unless said otherwise.
  void positional(const std::string& name, std::string& value, const std::string& meaning, bool required = true);
  void positional(const std::string& name, std::vector<std::string>& values, const std::string& meaning);  // at least one

  // "--max-tokens": the value at the time of the call is the default and is shown in the help.
  void option(const std::string& name, std::string& value, const std::string& meaning, bool required = false);
  void option(const std::string& name, std::int64_t& value, const std::string& meaning, bool required = false);
  void option(const std::string& name, double& value, const std::string& meaning);
  void option(const std::string& name, std::optional<std::int64_t>& value, const std::string& meaning);
  void option(const std::string& name, std::vector<std::string>& values, const std::string& meaning);   // may be repeated
  void option(const std::string& name, std::vector<std::int64_t>& values, const std::string& meaning);  // "1,8,32"
  void choice(const std::string& name, std::string& value, const std::vector<std::string>& words, const std::string& meaning,
              bool required = false);
  void flag(const std::string& name, bool& value, const std::string& meaning);

 private:
  CLI::App& app_;
};

// A command of the program: `declare` binds its options to variables that the returned function reads when it runs. The function
// returns the exit code; errors are thrown.
struct Command {
  std::string name;
  std::string summary;  // one line of the program's help
  std::function<std::function<int()>(Arguments&)> declare;
};

// Parses, runs, and turns errors into messages and exit codes (0, 1 a bug, 2 a user's mistake, 128 + signal when interrupted).
int run_program(int argc, char** argv, const std::vector<Command>& commands);

}  // namespace molt
