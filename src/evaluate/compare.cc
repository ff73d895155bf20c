#include "evaluate/compare.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/trim.h"
#include "data/sample_stream.h"
#include "formats/safetensors.h"

namespace molt {

namespace comparing {

Agreement agreement(const at::Tensor& a, const at::Tensor& b) {
  Agreement sums;
  constexpr std::int64_t rows = 256;  // in double precision at once
  for (std::int64_t begin = 0; begin < a.size(0); begin += rows) {
    const std::int64_t end = std::min(a.size(0), begin + rows);
    const at::Tensor x = a.slice(0, begin, end).to(at::kDouble), y = b.slice(0, begin, end).to(at::kDouble);
    const at::Tensor p = at::log_softmax(x, -1), q = at::log_softmax(y, -1);
    sums.positions += end - begin;
    sums.kl_ab += (p.exp() * (p - q)).sum().item<double>();
    sums.kl_ba += (q.exp() * (q - p)).sum().item<double>();
    sums.same_top += (x.argmax(-1) == y.argmax(-1)).sum().item<std::int64_t>();
    const at::Tensor difference = (x - x.mean(-1, true)) - (y - y.mean(-1, true));
    sums.largest_difference = std::max(sums.largest_difference, difference.abs().max().item<double>());
  }
  return sums;
}

}  // namespace comparing

std::vector<Sequence> read_sequences(const fs::path& path, const Tokenizer* tokenizer, std::int64_t vocabulary) {
  std::vector<Sequence> sequences;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) {
    if (is_blank(line)) continue;
    const std::string place = reader.place();
    const Json object = parse_json(line, place);
    require(object.is_object(), place, ": found no object, expected {\"tokens\": […]}");
    Sequence sequence;
    std::vector<std::int32_t>& tokens = sequence.tokens;
    if (object.contains("tokens")) {
      for (const std::int64_t id : get<std::vector<std::int64_t>>(object, "tokens", place)) {
        require(id >= 0 && id < vocabulary, place, ": tokens: found ", id, ", expected 0 to ", vocabulary - 1);
        tokens.push_back(static_cast<std::int32_t>(id));
      }
    } else {
      require(tokenizer, place, ": found no \"tokens\", and the model's folder has no tokenizer for text");
      // As a prompt is read: nothing ends it but a completion.
      if (object.contains("completion")) {
        PackedBatch::Sample sample = completion_sample(*tokenizer, get<std::string>(object, "prompt", place),
                                                       get<std::string>(object, "completion", place));
        sequence.completion = std::find(sample.weights.begin(), sample.weights.end(), 1.0f) - sample.weights.begin();
        tokens = std::move(sample.tokens);
      } else {
        tokens = tokenizer->encode(get<std::string>(object, object.contains("text") ? "text" : "prompt", place));
      }
    }
    require(!tokens.empty(), place, ": found no tokens, expected at least one");
    sequences.push_back(std::move(sequence));
  }
  require(!sequences.empty(), path.string(), ": the file holds no sequence");
  return sequences;
}

at::Tensor sequence_logits(const Model& model, const std::vector<std::int32_t>& tokens) {
  const c10::InferenceMode no_gradients;
  const PackedBatch batch = PackedBatch::of({{tokens, {}}}).to(model.device());
  return model.logits(model.forward(batch)).to(at::kFloat).cpu();
}

void write_logits(const Model& model, const std::vector<Sequence>& sequences, const fs::path& output) {
  std::vector<TensorInfo> plan;
  std::map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    TensorInfo info;
    info.name = std::to_string(i);
    info.shape = {static_cast<std::int64_t>(sequences[i].tokens.size()), model.config().vocabulary};
    index[info.name] = i;
    plan.push_back(std::move(info));
  }
  SafetensorsWriter writer(output, std::move(plan));
  Progress progress("logits", static_cast<std::int64_t>(sequences.size()), "sequences");
  std::int64_t done = 0;
  for (const TensorInfo& info : writer.order()) {
    throw_if_interrupted();
    writer.write(sequence_logits(model, sequences[index.at(info.name)].tokens));
    progress.update(++done);
  }
  writer.commit();
}

void Agreement::add(const Agreement& other) {
  positions += other.positions;
  kl_ab += other.kl_ab;
  kl_ba += other.kl_ba;
  same_top += other.same_top;
  largest_difference = std::max(largest_difference, other.largest_difference);
}

OrderedJson Comparison::to_json() const {
  const auto describe = [](const Agreement& part) {
    const auto n = static_cast<double>(std::max<std::int64_t>(part.positions, 1));
    return OrderedJson{{"positions", part.positions},
                       {"kl_ab", part.kl_ab / n},
                       {"kl_ba", part.kl_ba / n},
                       {"top1_agreement", static_cast<double>(part.same_top) / n},
                       {"largest_difference", part.largest_difference}};
  };
  OrderedJson json = describe(all);
  if (completions.positions > 0) json["completions"] = describe(completions);
  for (const auto& [first, part] : by_position) json["by_position"][std::to_string(first)] = describe(part);
  return json;
}

void compare_logits(const at::Tensor& a, const at::Tensor& b, Comparison& comparison, std::int64_t completion) {
  MOLT_CHECK(a.sizes() == b.sizes() && a.dim() == 2, "logits of different shapes");
  for (std::int64_t first = 0, next = 1; first < a.size(0); first = next, next *= 2) {
    const std::int64_t last = std::min(next, a.size(0));
    const Agreement range = comparing::agreement(a.slice(0, first, last), b.slice(0, first, last));
    comparison.by_position[first].add(range);
    comparison.all.add(range);
  }
  if (completion <= 0) return;
  const std::int64_t first = completion - 1, last = a.size(0) - 1;  // each position predicts the token after it
  comparison.completions.add(comparing::agreement(a.slice(0, first, last), b.slice(0, first, last)));
}

}  // namespace molt
