#include "base/config.h"
#include "base/config_yaml.h"

namespace molt {

namespace config_write {

using config_yaml::indented;
using config_yaml::yaml;

constexpr std::size_t width = 100;

class Writer final : public ConfigVisitor {
 public:
  explicit Writer(std::size_t columns) : columns_(columns) {}

  std::string text;

  void field(const char* name, bool& value, const char*) override { line(name, value); }
  void field(const char* name, std::int64_t& value, const char*) override { line(name, value); }
  void field(const char* name, double& value, const char*) override { line(name, value); }
  void field(const char* name, std::string& value, const char*) override { line(name, value); }
  void field(const char* name, std::vector<std::int64_t>& value, const char*) override { list_line(name, value); }
  void field(const char* name, std::vector<double>& value, const char*) override { list_line(name, value); }
  void field(const char* name, std::vector<std::string>& value, const char*) override { list_line(name, value); }
  void field(const char* name, std::optional<std::int64_t>& value, const char*) override { line(name, value); }
  void field(const char* name, std::optional<double>& value, const char*) override { line(name, value); }
  void choice(const char* name, std::string& value, const std::vector<std::string>&, const char*) override { line(name, value); }

  void section(const char* name, const char*, const Visit& visit) override { nested(name, visit); }

  void optional_section(const char* name, const char*, bool present, const Visit& visit, const std::function<void()>&) override {
    if (present)
      nested(name, visit);
    else
      text += std::string(name) + ": null\n";
  }

  void list(const char* name, const char*, std::size_t size, const std::function<void(std::size_t, ConfigVisitor&)>& visit,
            const std::function<void()>&) override {
    text += std::string(name) + (size == 0 ? ": []\n" : ":\n");
    for (std::size_t i = 0; i < size; ++i) {
      Writer element(columns_ - 4);
      visit(i, element);
      text += element.text.empty() ? "  - {}\n" : indented(element.text, "  - ", "    ");
    }
  }

  void map(const char* name, const char*, const std::vector<std::string>& keys,
           const std::function<void(const std::string&, ConfigVisitor&)>& visit, const std::function<void()>&) override {
    Writer sections(columns_ - 2);
    for (const std::string& key : keys) sections.nested(yaml(key), [&](ConfigVisitor& v) { visit(key, v); });
    text += std::string(name) + (keys.empty() ? ": {}\n" : ":\n" + indented(sections.text, "  ", "  "));
  }

 private:
  template <class T>
  void line(const char* name, const T& value) {
    text += std::string(name) + ": " + yaml(value) + "\n";
  }

  template <class T>
  void list_line(const char* name, const std::vector<T>& values) {
    text += config_yaml::list_of(name, values, columns_);
  }

  void nested(const std::string& name, const Visit& visit) {
    Writer section(columns_ - 2);
    visit(section);
    text += name + (section.text.empty() ? ": {}\n" : ":\n" + indented(section.text, "  ", "  "));
  }

  std::size_t columns_;
};

}  // namespace config_write

std::string to_yaml(const ConfigVisitor::Visit& visit) {
  config_write::Writer writer(config_write::width);
  visit(writer);
  return writer.text;
}

}  // namespace molt
