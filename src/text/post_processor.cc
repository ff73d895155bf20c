#include "text/post_processor.h"

#include "text/component.h"
#include "text/vocabulary.h"

namespace molt::text {
namespace post_processors {

using Ids = std::vector<std::int32_t>;

class TemplateProcessing : public PostProcessor {
 public:
  TemplateProcessing(const Json& json, const std::string& place) {
    const Json& parts = list_member(json, "single", place);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const std::string at = item_place(place, "single", i);
      require(parts[i].is_object() && parts[i].size() == 1, at, ": expected an object with SpecialToken or Sequence alone");
      if (parts[i].contains("SpecialToken")) {
        const auto name = get<std::string>(parts[i]["SpecialToken"], "id", at + ": SpecialToken");
        parts_.push_back({false, special(json, name, place)});
      } else {
        const auto name = get<std::string>(member(parts[i], "Sequence", at), "id", at + ": Sequence");
        require(name == "A", at, ": Sequence: id: found \"", name, "\", expected \"A\"");
        parts_.push_back({true, {}});
      }
    }
  }

  Ids apply(Ids ids) const override {
    Ids out;
    for (const auto& part : parts_) {
      const Ids& added = part.is_text ? ids : part.ids;
      out.insert(out.end(), added.begin(), added.end());
    }
    return out;
  }

 private:
  struct Part {
    bool is_text;
    Ids ids;
  };

  static Ids special(const Json& json, const std::string& name, const std::string& place) {
    const std::string at = place + ": special_tokens";
    const Json& token = member(member(json, "special_tokens", place), name, at);
    const std::string token_place = at + ": " + name;
    Ids ids;
    for (const Json& id : list_member(token, "ids", token_place)) ids.push_back(parse_id(id, token_place + ": ids"));
    return ids;
  }

  std::vector<Part> parts_;
};

class ByteLevel : public PostProcessor {
 public:
  Ids apply(Ids ids) const override { return ids; }
};

class Sequence : public PostProcessor {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PostProcessor>> parts) : parts_(std::move(parts)) {}
  Ids apply(Ids ids) const override {
    for (const auto& part : parts_) ids = part->apply(std::move(ids));
    return ids;
  }

 private:
  std::vector<std::unique_ptr<PostProcessor>> parts_;
};

using Made = std::unique_ptr<PostProcessor>;

Made make_template(const Json& json, const std::string& place) {
  return std::make_unique<TemplateProcessing>(json, place);
}

Made make_byte_level(const Json&, const std::string&) {
  return std::make_unique<ByteLevel>();
}

Made make_sequence(const Json& json, const std::string& place) {
  return std::make_unique<Sequence>(make_list(json, "processors", place, make_post_processor));
}

}  // namespace post_processors

std::unique_ptr<PostProcessor> make_post_processor(const Json& json, const std::string& place) {
  return make_component<post_processors::Made>(json, place,
                                               {{"TemplateProcessing", post_processors::make_template},
                                                {"ByteLevel", post_processors::make_byte_level},
                                                {"Sequence", post_processors::make_sequence}});
}

}  // namespace molt::text
