#include "text/decoder.h"

#include <optional>

#include "text/byte_level.h"
#include "text/component.h"
#include "text/metaspace.h"
#include "text/pieces.h"
#include "text/unicode.h"

namespace molt::text {
namespace decoders {

using Sink = std::unique_ptr<TokenSink>;

class Stage : public TokenSink {
 public:
  explicit Stage(Sink next) : next_(std::move(next)) {}
  void finish() override { next_->finish(); }

 protected:
  TokenSink& next() { return *next_; }

 private:
  Sink next_;
};

// A stage that looks at whole tokens: token() is called for each.
class TokenStage : public Stage {
 public:
  using Stage::Stage;
  void put(std::string_view fragment, bool ends_token) override {
    if (!ends_token) {
      if (!begun_) begun_.emplace();
      *begun_ += fragment;
    } else if (begun_) {
      *begun_ += fragment;
      token(*begun_);
      begun_.reset();
    } else {
      token(fragment);
    }
  }
  void finish() override {
    MOLT_CHECK(!begun_, "a token was not ended");
    Stage::finish();
  }

 protected:
  virtual void token(std::string_view token) = 0;

 private:
  std::optional<std::string> begun_;
};

// Bytes spelled in the byte-level alphabet, to one text. A token with other characters stands for itself.
class ByteLevel : public TokenStage {
 public:
  using TokenStage::TokenStage;
  void finish() override {
    std::string text;
    repair_.finish(text);
    next().put(text, true);
    TokenStage::finish();
  }

 protected:
  void token(std::string_view token) override {
    bytes_.clear();
    if (!append_bytes_of(token, bytes_)) bytes_ = token;
    text_.clear();
    repair_.push(bytes_, text_);
    if (!text_.empty()) next().put(text_, false);
  }

 private:
  std::string bytes_, text_;
  Utf8Repair repair_;
};

// A run of tokens "<0x0A>" is a text if its bytes are UTF-8, else a U+FFFD a byte. The run has to end before that is known.
class ByteFallback : public TokenStage {
 public:
  using TokenStage::TokenStage;
  void finish() override {
    end_run();
    TokenStage::finish();
  }

 protected:
  void token(std::string_view token) override {
    if (const auto byte = byte_of(token)) {
      run_ += *byte;
    } else {
      end_run();
      next().put(token, true);
    }
  }

 private:
  static std::optional<char> byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    int value = 0;
    for (const char c : token.substr(3, 2)) {
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                               : -1;
      if (digit < 0) return std::nullopt;
      value = 16 * value + digit;
    }
    return static_cast<char>(value);
  }

  void end_run() {
    if (run_.empty()) return;
    if (is_valid_utf8(run_)) {
      next().put(run_, true);
    } else {
      for (std::size_t i = 0; i < run_.size(); ++i) next().put("\uFFFD", true);
    }
    run_.clear();
  }

  std::string run_;
};

class Fuse : public Stage {
 public:
  using Stage::Stage;
  void put(std::string_view fragment, bool) override { next().put(fragment, false); }
  void finish() override {
    next().put("", true);
    Stage::finish();
  }
};

class Replace : public TokenStage {
 public:
  Replace(Sink next, const Pattern& pattern, const std::string& by) : TokenStage(std::move(next)), pattern_(pattern), by_(by) {}

 protected:
  void token(std::string_view token) override {
    std::string text(token);
    pattern_.replace(text, by_);
    next().put(text, true);
  }

 private:
  const Pattern& pattern_;
  const std::string& by_;
};

// Takes up to `start` characters `content` from the front of a token and up to `stop` from its end. It works on fragments, since
// behind a Fuse the whole text is one token: what could be the end waits.
class Strip : public Stage {
 public:
  Strip(Sink next, std::string content, std::int64_t start, std::int64_t stop)
      : Stage(std::move(next)), content_(std::move(content)), start_(start), stop_(stop) {}

  void put(std::string_view fragment, bool ends_token) override {
    while (in_front_ && stripped_ < start_ && fragment.starts_with(content_)) {
      fragment.remove_prefix(content_.size());
      ++stripped_;
    }
    if (!fragment.empty()) in_front_ = false;
    std::string text = std::move(waiting_);
    waiting_.clear();
    text += fragment;
    std::size_t end = text.size();
    for (std::int64_t i = 0; i < stop_ && std::string_view(text).substr(0, end).ends_with(content_); ++i) end -= content_.size();
    if (!ends_token) waiting_ = text.substr(end);
    next().put(std::string_view(text).substr(0, end), ends_token);
    if (ends_token) in_front_ = true, stripped_ = 0;
  }

 private:
  std::string content_;
  std::int64_t start_, stop_;
  bool in_front_ = true;  // nothing but stripped characters so far
  std::int64_t stripped_ = 0;
  std::string waiting_;
};

class SpaceForMark : public TokenStage {
 public:
  SpaceForMark(Sink next, const Metaspace& options) : TokenStage(std::move(next)), options_(options) {}
  void finish() override {
    first_ = true;
    TokenStage::finish();
  }

 protected:
  // The marks of the first token were put there by the encoder, unless it puts none.
  void token(std::string_view token) override {
    const std::string_view by = first_ && options_.prepend != Metaspace::Prepend::never ? "" : " ";
    first_ = false;
    std::string text;
    for (std::size_t position = 0; position < token.size();) {
      if (token.substr(position).starts_with(options_.mark)) {
        text += by;
        position += options_.mark.size();
      } else {
        text += token[position++];
      }
    }
    next().put(text, true);
  }

 private:
  const Metaspace& options_;
  bool first_ = true;
};

class SpaceBetween : public TokenStage {
 public:
  using TokenStage::TokenStage;
  void finish() override {
    first_ = true;
    TokenStage::finish();
  }

 protected:
  void token(std::string_view token) override {
    if (!first_) next().put(" ", false);
    first_ = false;
    next().put(token, true);
  }

 private:
  bool first_ = true;
};

class Appender : public TokenSink {
 public:
  explicit Appender(std::string& text) : text_(text) {}
  void put(std::string_view fragment, bool) override { text_ += fragment; }
  void finish() override {}

 private:
  std::string& text_;
};

using Made = std::unique_ptr<Decoder>;

// A decoder whose stage needs nothing but the next one.
template <class StageType>
class Plain : public Decoder {
 public:
  Sink open(Sink next) const override { return std::make_unique<StageType>(std::move(next)); }
};

template <class StageType>
Made make_plain(const Json&, const std::string&) {
  return std::make_unique<Plain<StageType>>();
}

class ReplaceDecoder : public Decoder {
 public:
  ReplaceDecoder(const Json& json, const std::string& place)
      : pattern_(json, place), by_(get<std::string>(json, "content", place)) {}
  Sink open(Sink next) const override { return std::make_unique<Replace>(std::move(next), pattern_, by_); }

 private:
  Pattern pattern_;
  std::string by_;
};

class StripDecoder : public Decoder {
 public:
  StripDecoder(const Json& json, const std::string& place)
      : content_(get<std::string>(json, "content", place)),
        start_(get<std::int64_t>(json, "start", place)),
        stop_(get<std::int64_t>(json, "stop", place)) {
    require(!content_.empty() && character_length(content_[0]) == content_.size(), place, ": content: found \"", content_,
            "\", expected one character");
    require(start_ >= 0 && stop_ >= 0, place, ": start and stop: found ", start_, " and ", stop_,
            ", expected no negative number");
  }
  Sink open(Sink next) const override { return std::make_unique<Strip>(std::move(next), content_, start_, stop_); }

 private:
  std::string content_;
  std::int64_t start_, stop_;
};

class MetaspaceDecoder : public Decoder {
 public:
  MetaspaceDecoder(const Json& json, const std::string& place) : options_(json, place) {}
  Sink open(Sink next) const override { return std::make_unique<SpaceForMark>(std::move(next), options_); }

 private:
  Metaspace options_;
};

class Sequence : public Decoder {
 public:
  Sequence(const Json& json, const std::string& place) : parts_(make_list(json, "decoders", place, make_decoder)) {}
  Sink open(Sink next) const override {
    for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) next = (*part)->open(std::move(next));
    return next;
  }

 private:
  std::vector<Made> parts_;
};

template <class Type>
Made make(const Json& json, const std::string& place) {
  return std::make_unique<Type>(json, place);
}

}  // namespace decoders

std::unique_ptr<TokenSink> append_to(std::string& text) {
  return std::make_unique<decoders::Appender>(text);
}

std::unique_ptr<Decoder> join_with_spaces() {
  return std::make_unique<decoders::Plain<decoders::SpaceBetween>>();
}

std::unique_ptr<Decoder> make_decoder(const Json& json, const std::string& place) {
  return make_component<decoders::Made>(json, place,
                                        {{"ByteLevel", decoders::make_plain<decoders::ByteLevel>},
                                         {"Replace", decoders::make<decoders::ReplaceDecoder>},
                                         {"ByteFallback", decoders::make_plain<decoders::ByteFallback>},
                                         {"Fuse", decoders::make_plain<decoders::Fuse>},
                                         {"Strip", decoders::make<decoders::StripDecoder>},
                                         {"Metaspace", decoders::make<decoders::MetaspaceDecoder>},
                                         {"Sequence", decoders::make<decoders::Sequence>}});
}

}  // namespace molt::text
