#include "evaluate/compare.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/InferenceMode.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "data/sample_stream.h"
#include "formats/safetensors.h"

namespace molt {

std::vector<std::vector<std::int32_t>> read_sequences(const fs::path& path, const Tokenizer* tokenizer, std::int64_t vocabulary) {
  std::vector<std::vector<std::int32_t>> sequences;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) {
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = reader.place();
    const Json object = parse_json(line, place);
    require(object.is_object(), place, ": found no object, expected {\"tokens\": […]}");
    std::vector<std::int32_t> tokens;
    if (object.contains("tokens")) {
      for (const std::int64_t id : get<std::vector<std::int64_t>>(object, "tokens", place)) {
        require(id >= 0 && id < vocabulary, place, ": tokens: found ", id, ", expected 0 to ", vocabulary - 1);
        tokens.push_back(static_cast<std::int32_t>(id));
      }
    } else {
      require(tokenizer, place, ": found no \"tokens\", and the model's folder has no tokenizer for text");
      // As a prompt is read: nothing ends it but a completion.
      if (object.contains("completion")) {
        tokens = completion_sample(*tokenizer, get<std::string>(object, "prompt", place),
                                   get<std::string>(object, "completion", place))
                     .tokens;
      } else {
        tokens = tokenizer->encode(get<std::string>(object, object.contains("text") ? "text" : "prompt", place));
      }
    }
    require(!tokens.empty(), place, ": found no tokens, expected at least one");
    sequences.push_back(std::move(tokens));
  }
  require(!sequences.empty(), path.string(), ": the file holds no sequence");
  return sequences;
}

at::Tensor sequence_logits(const Model& model, const std::vector<std::int32_t>& tokens) {
  const c10::InferenceMode no_gradients;
  const PackedBatch batch = PackedBatch::of({{tokens, {}}}).to(model.device());
  return model.logits(model.forward(batch)).to(at::kFloat).cpu();
}

void write_logits(const Model& model, const std::vector<std::vector<std::int32_t>>& sequences, const fs::path& output) {
  std::vector<TensorInfo> plan;
  std::map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    TensorInfo info;
    info.name = std::to_string(i);
    info.shape = {static_cast<std::int64_t>(sequences[i].size()), model.config().vocabulary};
    index[info.name] = i;
    plan.push_back(std::move(info));
  }
  SafetensorsWriter writer(output, std::move(plan));
  Progress progress("logits", static_cast<std::int64_t>(sequences.size()), "sequences");
  std::int64_t done = 0;
  for (const TensorInfo& info : writer.order()) {
    throw_if_interrupted();
    writer.write(sequence_logits(model, sequences[index.at(info.name)]));
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
  for (const auto& [first, part] : by_position) json["by_position"][std::to_string(first)] = describe(part);
  return json;
}

void compare_logits(const at::Tensor& a, const at::Tensor& b, Comparison& comparison) {
  MOLT_CHECK(a.sizes() == b.sizes() && a.dim() == 2, "logits of different shapes");
  for (std::int64_t first = 0, next = 1; first < a.size(0); first = next, next *= 2) {
    const std::int64_t last = std::min(next, a.size(0));
    Agreement range;
    constexpr std::int64_t rows = 256;  // in double precision at once
    for (std::int64_t begin = first; begin < last; begin += rows) {
      const std::int64_t end = std::min(last, begin + rows);
      const at::Tensor x = a.slice(0, begin, end).to(at::kDouble), y = b.slice(0, begin, end).to(at::kDouble);
      const at::Tensor p = at::log_softmax(x, -1), q = at::log_softmax(y, -1);
      range.positions += end - begin;
      range.kl_ab += (p.exp() * (p - q)).sum().item<double>();
      range.kl_ba += (q.exp() * (q - p)).sum().item<double>();
      range.same_top += (x.argmax(-1) == y.argmax(-1)).sum().item<std::int64_t>();
      const at::Tensor difference = (x - x.mean(-1, true)) - (y - y.mean(-1, true));
      range.largest_difference = std::max(range.largest_difference, difference.abs().max().item<double>());
    }
    comparison.by_position[first].add(range);
    comparison.all.add(range);
  }
}

}  // namespace molt
