#include "report/gnuplot.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/files.h"
#include "report/text.h"

namespace molt::report {

namespace gnuplot_parts {

constexpr const char* hint = "molt report draws its figures with it: install the package gnuplot-nox";

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "molt-report-XXXXXX").string();
    require(mkdtemp(pattern.data()) != nullptr, pattern, ": cannot make a temporary folder: ", std::strerror(errno));
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// Runs `gnuplot -d script` in a folder, without a shell. Returns its wait status; what it prints goes to the file "messages".
int run(const fs::path& folder, const char* script) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "messages", O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  // -d: no start-up files, which could change how figures look.
  const char* arguments[] = {"gnuplot", "-d", script, nullptr};
  pid_t child = 0;
  const int error = posix_spawnp(&child, arguments[0], &actions, nullptr, const_cast<char**>(arguments), environ);
  posix_spawn_file_actions_destroy(&actions);
  require(error != ENOENT, "gnuplot: not found; ", hint);
  require(error == 0, "gnuplot: cannot start: ", std::strerror(error), "; ", hint);
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    MOLT_CHECK(errno == EINTR, "waitpid: ", std::strerror(errno));
  }
  return status;
}

std::string script_of(const Drawing& drawing) {
  std::string id = drawing.name;  // gnuplot allows no hyphens in it
  std::replace(id.begin(), id.end(), '-', '_');
  // The picture of pixels has two for one; its fonts are wider than those of browsers.
  const auto terminal = [&](const char* name, int scale, const std::string& more, const char* suffix) {
    return concat("set terminal ", name, " size ", scale * drawing.width, ",", scale * drawing.height,
                  " noenhanced font 'sans-serif,13' background '#ffffff' ", more, "\nset output '", drawing.name, suffix, "'\n");
  };
  return concat("# ", quoted(drawing.title), "\nset encoding utf8\n",
                terminal("svg", 1, concat("dynamic name '", id, "'"), ".svg"), drawing.commands, "unset output\n",
                terminal("pngcairo", 2, "fontscale 1.8 linewidth 2 pointscale 2", ".png"), "replot\nunset output\n");
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// gnuplot's own titles ("frontier_plot_1"), which browsers show under the pointer, go; the first becomes the figure's.
void set_title(std::string& svg, const std::string& title) {
  for (std::size_t at = svg.find("<title>"), count = 0; at != std::string::npos; at = svg.find("<title>", at + 1), ++count) {
    const std::size_t end = svg.find("</title>", at);
    if (end == std::string::npos) return;
    svg.replace(at, end + 8 - at, count == 0 ? concat("<title>", escape_html(title), "</title>") : "");
    if (count > 0) --at;
  }
}

// "#0072b2" as gnuplot writes it: "rgb(  0, 114, 178)", "rgb(0,114,178)".
std::pair<std::string, std::string> spellings(const char* colour) {
  const long value = std::strtol(colour + 1, nullptr, 16);
  char wide[32], narrow[32];
  std::snprintf(wide, sizeof wide, "rgb(%3ld, %3ld, %3ld)", value >> 16, value >> 8 & 255, value & 255);
  std::snprintf(narrow, sizeof narrow, "rgb(%ld,%ld,%ld)", value >> 16, value >> 8 & 255, value & 255);
  return {wide, narrow};
}

}  // namespace gnuplot_parts

std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '\'') result += '\'';
    result += code < 0x20 || code == 0x7f ? ' ' : c;
  }
  return result + "'";
}

Figure draw(const Drawing& drawing) {
  using namespace gnuplot_parts;
  MOLT_CHECK(drawing.name == slug(drawing.name), "a figure named ", drawing.name);
  Figure figure{drawing.name, drawing.title, script_of(drawing), "", ""};
  const TemporaryFolder folder;
  write_file(folder.path() / "figure.gp", figure.script);
  const int status = run(folder.path(), "figure.gp");
  const fs::path svg = folder.path() / (drawing.name + ".svg"), png = folder.path() / (drawing.name + ".png");
  const bool drawn = status == 0 && fs::exists(svg) && fs::exists(png);
  if (!drawn) {
    std::string message = read_file(folder.path() / "messages");
    for (char& c : message) c = c == '\n' ? ' ' : c;
    fail("gnuplot: cannot draw the figure ", drawing.name, ": ", shortened(message, 400), "; ", hint,
         ", whose terminals svg and pngcairo are needed");
  }
  figure.svg = read_file(svg);
  figure.png = read_file(png);
  set_title(figure.svg, drawing.title);
  return figure;
}

std::string inline_svg(const Figure& figure) {
  using namespace gnuplot_parts;
  const std::size_t begin = figure.svg.find("<svg");
  MOLT_CHECK(begin != std::string::npos, "a figure without <svg>");
  std::string svg = figure.svg.substr(begin);
  svg.insert(4, concat(" role=\"img\" aria-label=\"", escape_html(figure.title), "\""));
  for (const char* id : {"gpPt", "gpDot", "textbox", "greybox", "gnuplot_canvas"}) {
    for (const char* before : {"id='", "id=\"", "href='#", "url(#"}) {
      replace_all(svg, concat(before, id), concat(before, figure.name, "-", id));
    }
  }
  const std::string ground = "fill=\"#ffffff\"";
  if (const std::size_t at = svg.find(ground); at != std::string::npos) svg.replace(at, ground.size(), "fill=\"none\"");
  for (const Colour& colour : all_colours) {
    const auto [wide, narrow] = spellings(colour.light);
    for (const std::string& spelling : {wide, narrow, std::string(colour.light)}) {
      for (const char* quote : {"'", "\""}) {
        replace_all(svg, concat(quote, spelling, quote), concat(quote, "var(--", colour.name, ")", quote));
      }
    }
  }
  return svg;
}

}  // namespace molt::report
