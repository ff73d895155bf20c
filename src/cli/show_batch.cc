#include "cli/show_batch.h"

#include <iostream>

#include "base/error.h"
#include "cli/configuration_file.h"
#include "data/batch_text.h"
#include "distill/run_training.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "formats/safetensors.h"

namespace molt {

namespace shown_batch {

// The parts of "micro_batch_<i>." that a text needs, as a run's guard wrote them.
PackedBatch saved(const SafetensorsFile& file, const std::string& prefix) {
  PackedBatch batch;
  batch.tokens = file.tensor(prefix + "tokens");
  batch.loss_weights = file.tensor(prefix + "loss_weights");
  const at::Tensor offsets = file.tensor(prefix + "cu_seqlens");
  const std::string place = concat(file.path().string(), ": ", prefix, "cu_seqlens");
  require(batch.tokens.scalar_type() == at::kLong && batch.loss_weights.scalar_type() == at::kFloat &&
              offsets.scalar_type() == at::kInt && batch.tokens.dim() == 1 && offsets.dim() == 1 && offsets.numel() > 0 &&
              batch.tokens.sizes() == batch.loss_weights.sizes(),
          place, ": found other types or shapes than those of a saved batch");
  const auto* at = offsets.const_data_ptr<std::int32_t>();
  std::vector<std::int32_t> lengths;
  for (std::int64_t i = 1; i < offsets.numel(); ++i) {
    require(at[i] >= at[i - 1], place, ": found ", at[i], " after ", at[i - 1], ", expected ascending offsets");
    lengths.push_back(at[i] - at[i - 1]);
  }
  batch.sequences = Sequences::of(lengths);
  require(at[0] == 0 && batch.sequences.tokens() == batch.tokens.numel(), place, ": found offsets from ", at[0], " to ",
          at[offsets.numel() - 1], ", expected 0 to the number of tokens, ", batch.tokens.numel());
  return batch;
}

std::vector<PackedBatch> saved_step(const fs::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::vector<PackedBatch> batches;
  for (std::string prefix; file.find((prefix = concat("micro_batch_", batches.size(), ".")) + "tokens");) {
    batches.push_back(saved(file, prefix));
  }
  require(!batches.empty(), path.string(), ": found no tensor micro_batch_0.tokens, expected the batches of a step");
  return batches;
}

std::vector<PackedBatch> drawn_step(const TrainConfig& config, const std::shared_ptr<const Tokenizer>& tokenizer,
                                    std::int64_t vocabulary, const std::string& place, std::int64_t step) {
  const auto source = open_source(config.data, tokenizer, vocabulary, static_cast<std::uint64_t>(config.seed), place + ": data");
  std::vector<PackedBatch> batches;
  for (std::int64_t i = 0; i < step * config.training.micro_batches; ++i) {
    PackedBatch batch = source->next(config.training.micro_batch_tokens);
    if (i >= (step - 1) * config.training.micro_batches) batches.push_back(std::move(batch));
  }
  return batches;
}

}  // namespace shown_batch

void show_batch(const fs::path& model, const std::string& source, std::int64_t step) {
  using namespace shown_batch;
  require(step >= 1, "--step: found ", step, ", expected a number from 1 up");
  require(fs::exists(source), "--batch: ", source, ": no such file or folder");
  const fs::path texts = tokenizer_folder(model);
  const auto tokenizer = fs::exists(texts / "tokenizer.json") ? Tokenizer::load(texts) : nullptr;
  std::vector<PackedBatch> batches;
  if (source.ends_with(".safetensors")) {
    batches = saved_step(source);
  } else {
    TrainConfig config;
    if (fs::is_directory(source)) {
      config.data.path = source;
    } else {
      check_configuration_file(source, ConfigurationKind::training,
                               {.data = concat("prepare data and show its folder: molt prepare --input ", source, " --tokenizer ",
                                               model.string(), " --output DATA, molt inspect ", model.string(), " --batch DATA"),
                                .model = "expected batches that a run saved end in .safetensors"});
      config = load_config<TrainConfig>(source);
    }
    batches = drawn_step(config, tokenizer, read_model_config(model).vocabulary, source, step);
  }
  for (std::size_t i = 0; i < batches.size(); ++i) {
    if (batches.size() > 1) std::cout << "micro-batch " << i << "\n";
    std::cout << batch_text(batches[i], tokenizer.get());
  }
}

}  // namespace molt
