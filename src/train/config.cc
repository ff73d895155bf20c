#include "train/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "formats/family.h"
#include "formats/hugging_face.h"

namespace molt {

void PretrainedConfig::visit(ConfigVisitor& v) {
  std::vector<std::string> formats = {"auto"};
  for (const Family& family : families()) formats.push_back(family.model_type);
  v.choice("format", format, formats, "Kind of model that the folder must hold");
  v.field("path", path, "Hugging Face folder, checkpoint or run");
}

void DivergenceFactors::visit(ConfigVisitor& v) {
  v.field("reverse_kl", reverse_kl, "Of KL(student || teacher)");
  v.field("forward_kl", forward_kl, "Of KL(teacher || student)");
  v.field("jsd", jsd, "Of the Jensen-Shannon divergence");
  if (v.reading())
    require(reverse_kl >= 0 && forward_kl >= 0 && jsd >= 0 && reverse_kl + forward_kl + jsd > 0, v.place(),
            ": expected factors from 0 up, one of them positive");
}

void DivergenceConfig::visit(ConfigVisitor& v) {
  v.choice("distillation_loss_implementation", distillation_loss_implementation, {"forward_kl", "reverse_kl", "jsd"},
           "forward_kl: KL(teacher || student); reverse_kl, as published: KL(student || teacher); jsd: Jensen-Shannon, between");
  v.field("distillation_jsd_beta", distillation_jsd_beta,
          "Of the teacher in the mixture of both that jsd measures from: close to 0 it acts as forward_kl, to 1 as reverse_kl");
  v.field("distillation_loss_mix", distillation_loss_mix, "A weighted sum in place of the one implementation");
  v.field("distillation_temperature", distillation_temperature, "Both models' logits are divided by it");
  if (!v.reading()) return;
  require(distillation_temperature > 0, v.place(), ": distillation_temperature: found ", distillation_temperature,
          ", expected a positive number");
  require(distillation_jsd_beta > 0 && distillation_jsd_beta < 1, v.place(), ": distillation_jsd_beta: found ",
          distillation_jsd_beta, ", expected a number between 0 and 1");
}

ops::LossMix DivergenceConfig::divergence() const {
  DivergenceFactors factors;
  if (distillation_loss_mix) {
    factors = *distillation_loss_mix;
  } else if (distillation_loss_implementation == "jsd") {
    factors.jsd = 1;
  } else {
    (distillation_loss_implementation == "reverse_kl" ? factors.reverse_kl : factors.forward_kl) = 1;
  }
  ops::LossMix mix;
  mix.reverse_kl = factors.reverse_kl;
  mix.forward_kl = factors.forward_kl;
  mix.jsd = factors.jsd;
  mix.beta = distillation_jsd_beta;
  mix.temperature = distillation_temperature;
  return mix;
}

std::string DivergenceConfig::divergence_name() const {
  return distillation_loss_mix ? "mix" : distillation_loss_implementation;
}

void HeadConfig::visit(ConfigVisitor& v) {
  v.field("distillation_model", distillation_model, "The teacher, a name under reference_models; empty: no distillation");
  DivergenceConfig::visit(v);
  v.field("distillation_loss_factor", distillation_loss_factor, "Weight of the distillation loss");
  v.field("language_model_loss_factor", language_model_loss_factor,
          "Weight of next-token cross-entropy; by default 0 with a distillation_model and 1 without");
  v.field("z_loss_factor", z_loss_factor, "Weight of log(sum of exp(logits))^2, which keeps logits from drifting; 1e-4 is usual");
  if (!v.reading()) return;
  require(z_loss_factor >= 0, v.place(), ": z_loss_factor: found ", z_loss_factor, ", expected a number from 0 up");
  require(distillation_loss_factor >= 0, v.place(), ": distillation_loss_factor: found ", distillation_loss_factor,
          ", expected a number from 0 up");
  const ops::LossMix total = mix();
  require(total.cross_entropy >= 0 && (total.cross_entropy > 0 || total.diverges()), v.place(),
          ": language_model_loss_factor: found ", total.cross_entropy,
          ", expected a number from 0 up, and a positive one where nothing is distilled");
}

ops::LossMix HeadConfig::mix() const {
  ops::LossMix mix = divergence();
  const double factor = distills() ? distillation_loss_factor : 0;
  mix.reverse_kl *= factor;
  mix.forward_kl *= factor;
  mix.jsd *= factor;
  mix.cross_entropy = language_model_loss_factor.value_or(distills() ? 0.0 : 1.0);
  mix.z = z_loss_factor;
  return mix;
}

void BaseModelConfig::visit(ConfigVisitor& v) {
  architecture.visit(v);
  v.field("head", head, "The loss");
}

void ModelSourceConfig::visit(ConfigVisitor& v) {
  v.field("pretrained", pretrained, "Where the weights come from; without it base_model is initialised");
  v.field("base_model", base_model, "What the model is made of, when it is not pretrained, and its loss");
  v.field("initial_deviation", initial_deviation, "Standard deviation of initialised projection weights");
  v.field("lora", lora, "Train low-rank adapters of the projections, and nothing else");
}

void ReferenceModelConfig::visit(ConfigVisitor& v) {
  v.field("pretrained", pretrained, "Where the weights come from");
  v.field("logits", logits, "In place of the weights: folders of molt logits --top-k, one for each data set that is read");
  v.choice("dtype", dtype, {"auto", "fp8"}, "auto: the run's; fp8: products of its projections in eight bits");
  if (v.reading())
    require(logits.empty() || (pretrained.path.empty() && dtype == "auto"), v.place(),
            ": logits: found beside pretrained.path or dtype, expected logits alone or a model");
}

void HeldOutConfig::visit(ConfigVisitor& v) {
  v.field("data", data, "What to measure the loss on");
  v.field("tokens", tokens, "How many tokens of it, the same at each evaluation");
  if (v.reading()) require(tokens >= 2, v.place(), ": tokens: found ", tokens, ", expected a number from 2 up");
}

void TrainConfig::visit(ConfigVisitor& v) {
  v.field("model", model, "The model that trains");
  v.field("reference_models", reference_models, "Frozen models by name: teachers of a distillation");
  v.field("tokenizer", tokenizer, "Folder with tokenizer.json; empty: the pretrained model's");
  v.field("data", data, "What to learn from");
  v.field("held_out", held_out, "Data by name whose loss is measured at each evaluation");
  v.field("training", training, "The loop");
  v.field("seed", seed, "Of everything random: initial weights, order of the data");
  v.choice("device", device, {"auto", "cpu", "cuda"}, "auto: a GPU when there is one");
  v.choice("dtype", dtype, {"auto", "float32", "bfloat16"},
           "Of weights and activations; auto: float32 on the CPU, bfloat16 on a GPU");
  v.field("output", output, "Run folder: created, or continued where it was stopped");
  v.field("shard_size", shard_size, "Largest file of an export's weights, in GB");
  if (!v.reading()) return;
  shard_bytes(shard_size, v.place() + ": shard_size");
  const std::string& teacher = model.base_model.head.distillation_model;
  if (teacher.empty() || reference_models.contains(teacher)) return;
  std::vector<std::string> names;
  for (const auto& [name, unused] : reference_models) names.push_back(name);
  const std::string near = nearest(teacher, names);
  fail(v.place(), ": model.base_model.head.distillation_model: found \"", teacher, "\", expected a name under reference_models",
       near.empty() ? "" : concat(" (did you mean \"", near, "\"?)"));
}

std::unique_ptr<Model> make_model(const ModelSourceConfig& config, std::uint64_t seed, at::Device device, at::ScalarType dtype,
                                  const std::string& place) {
  const ModelConfig& architecture = config.base_model.architecture;
  if (config.pretrained) {
    require(architecture.blocks.empty(), place, ".base_model.decoder: found ", counted(architecture.num_layers(), "layer"),
            " beside pretrained, which brings its own");
    return load_pretrained(*config.pretrained, device, dtype, place + ".pretrained");
  }
  require(!architecture.blocks.empty(), place, ": found neither pretrained nor base_model.decoder, expected one of them");
  auto model = std::make_unique<Model>(architecture);
  model->initialise({derive_seed(seed, "model"), config.initial_deviation}, device, dtype);
  return model;
}

std::unique_ptr<Model> load_pretrained(const PretrainedConfig& config, at::Device device, at::ScalarType dtype,
                                       const std::string& place) {
  require(!config.path.empty(), place, ".path: missing, expected a Hugging Face folder");
  const fs::path folder = resolve_model_folder(config.path);
  if (config.format != "auto") {
    const fs::path file = folder / "config.json";
    const auto type = get<std::string>(read_json(file), "model_type", file.string());
    require(type == config.format, place, ".format: found ", config.format, ", but ", file.string(), " is of model_type ", type);
  }
  return load_model(folder, {device, dtype});
}

std::vector<PackedBatch> held_out_batches(BatchSource& source, std::int64_t tokens, std::int64_t micro_batch_tokens) {
  std::vector<PackedBatch> batches;
  for (std::int64_t left = tokens; left > 1; left -= batches.back().size()) {
    batches.push_back(source.next(std::min(left, micro_batch_tokens)));
  }
  return batches;
}

}  // namespace molt
