#include "distill/check_logits.h"

#include "base/error.h"

namespace molt {

void check_logits(const StoredLogits& logits, const HeadConfig& head, const Model& student, const Tokenizer* tokenizer,
                  const std::string& place) {
  const LogitsManifest& about = logits.about();
  require(about.vocabulary == student.config().vocabulary, place, ": found logits of a vocabulary of ", about.vocabulary,
          ", expected the student's, ", student.config().vocabulary);
  require(about.temperature == head.distillation_temperature, place, ": found logits at temperature ", about.temperature,
          ", expected the head's distillation_temperature, ", head.distillation_temperature,
          ": what the others come to at one temperature does not tell it at another");
  if (!tokenizer || about.tokenizer.empty()) return;
  const std::string own = tokenizer_fingerprint(*tokenizer);
  require(about.tokenizer == own, place, ": found logits of a teacher with tokenizer ", about.tokenizer,
          ", expected the student's, ", own, ": their ids spell other tokens");
}

void check_logits_data(const StoredLogits& logits, const DataConfig& data, const std::string& place) {
  require(!data.on_policy, place, ".on_policy: found beside stored logits, expected a teacher in memory: what the student will ",
          "write is not known beforehand");
  const auto check = [&](const std::string& path, bool synthetic, const std::string& at) {
    require(!synthetic, at, ".synthetic: found beside stored logits, expected a path: fresh problems have none");
    if (!path.empty()) logits.require_data(path, at + ".path");
  };
  check(data.path, data.synthetic.has_value(), place);
  for (const auto& [name, part] : data.blend) check(part.path, part.synthetic.has_value(), concat(place, ".blend.", name));
}

}  // namespace molt
