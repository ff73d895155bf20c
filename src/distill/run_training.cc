#include "distill/run_training.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "distill/check_logits.h"
#include "distill/costs.h"
#include "distill/objective.h"
#include "distill/on_policy.h"
#include "formats/folder_fingerprint.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "ops/device.h"
#include "ops/fp8_linear/fp8_linear.h"
#include "train/trained_names.h"

namespace molt {

namespace run_parts {

// A stream whose tokens the model knows.
class CheckedStream : public SampleStream {
 public:
  CheckedStream(std::shared_ptr<const SampleStream> stream, std::int64_t vocabulary, std::string place)
      : stream_(std::move(stream)), vocabulary_(vocabulary), place_(std::move(place)) {}
  std::int64_t size() const override { return stream_->size(); }
  std::int64_t tokens() const override { return stream_->tokens(); }
  PackedBatch::Sample at(std::int64_t index) const override {
    PackedBatch::Sample sample = stream_->at(index);
    for (const std::int32_t token : sample.tokens) {
      require(token >= 0 && token < vocabulary_, place_, ": sample ", index, ": found token ", token, ", expected ids from 0 to ",
              vocabulary_ - 1, ", which the model's vocabulary holds");
    }
    return sample;
  }

 private:
  std::shared_ptr<const SampleStream> stream_;
  std::int64_t vocabulary_;
  std::string place_;
};

std::shared_ptr<const Model> open_teacher(const TrainConfig& config, RunModels& models, at::Device device, at::ScalarType dtype,
                                          const std::string& place) {
  const std::string& name = config.model.base_model.head.distillation_model;
  const ReferenceModelConfig& reference = config.reference_models.at(name);
  const PretrainedConfig& source = reference.pretrained;
  const std::string source_place = concat(place, ": reference_models.", name, ".pretrained");
  require(!source.path.empty(), source_place, ".path: missing, expected a Hugging Face folder");
  if (config.model.pretrained) {
    std::error_code error;
    const fs::path student = resolve_model_folder(config.model.pretrained->path), teacher = resolve_model_folder(source.path);
    if (fs::equivalent(student, teacher, error)) {
      return in_dtype(models.student->share(), reference.dtype, concat(place, ": reference_models.", name));
    }
  }
  std::shared_ptr<const Model> teacher = load_pretrained(source, device, dtype, source_place);
  share_equal_tensors(*models.student, *teacher);
  return in_dtype(std::move(teacher), reference.dtype, concat(place, ": reference_models.", name));
}

// After the teacher has taken its share of the student, so that it has no adapters.
void add_lora(const TrainConfig& config, RunModels& models, const std::string& place) {
  require(config.model.pretrained.has_value(), place,
          ".lora: found no pretrained model, expected one that the adapters belong to");
  require(
      !is_adapter_folder(models.like), place, ".pretrained.path: found ", models.like.string(),
      ", which holds adapters itself; expected whole weights (molt convert merges it), or that folder as lora.start beside its "
      "base");
  add_adapters(*models.student, *config.model.lora, derive_seed(static_cast<std::uint64_t>(config.seed), "lora"),
               place + ".lora");
}

OnPolicyOptions on_policy(const TrainConfig& config, const DataConfig& data, const RunModels& models, const std::string& place) {
  require(models.tokenizer != nullptr, place, ": found no tokenizer.json, expected one that names the tokens that end a text");
  return {*data.on_policy, models.tokenizer->stop_tokens(), derive_seed(static_cast<std::uint64_t>(config.seed), "on_policy")};
}

double share_in_problems(const SyntheticConfig& synthetic, const std::shared_ptr<const Tokenizer>& tokenizer) {
  constexpr std::int64_t looked_at = 256;
  const auto problems = synthetic_stream(synthetic, tokenizer);
  double learned = 0, tokens = 0;
  for (std::int64_t i = 0; i < looked_at; ++i) {
    const PackedBatch::Sample sample = problems->at(i);
    const auto unlearned = std::count(sample.weights.begin(), sample.weights.end(), 0.0f);
    learned += static_cast<double>(std::ssize(sample.tokens) - unlearned);
    tokens += static_cast<double>(sample.tokens.size());
  }
  return learned / tokens;
}

// Of the data's tokens that carry loss, at most (data.learn may leave fewer); all of them where the student writes what it learns
// from.
double loss_share(const DataConfig& data, const std::shared_ptr<const Tokenizer>& tokenizer) {
  if (data.on_policy) return 1;
  const auto share = [&](const std::string& path, const std::optional<SyntheticConfig>& synthetic) {
    return synthetic ? share_in_problems(*synthetic, tokenizer) : learned_share(path);
  };
  if (data.blend.empty()) return share(data.path, data.synthetic);
  double learned = 0, all = 0;
  for (const auto& [name, part] : data.blend) {
    learned += part.weight * share(part.path, part.synthetic);
    all += part.weight;
  }
  return learned / all;
}

// Of the configuration's held-out data, in the order of its names. `own`: the objective is the head's.
std::vector<std::unique_ptr<Evaluator>> held_out_losses(const TrainConfig& config, const RunModels& models, Objective& objective,
                                                        bool own, const std::shared_ptr<TextSampler>& sampler,
                                                        const std::string& run_place) {
  std::vector<std::unique_ptr<Evaluator>> held_out;
  for (const auto& [name, part] : config.held_out) {
    // Without a teacher's opinion there is nothing to measure on what the student writes.
    if (part.data.on_policy && (!config.model.base_model.head.distills() || !own)) continue;
    const std::string place = concat(run_place, ": held_out.", name, ".data");
    const auto source = open_source(part.data, models.tokenizer, models.student->config().vocabulary,
                                    static_cast<std::uint64_t>(config.seed), place);
    const std::int64_t most = config.training.micro_batch_tokens;
    std::vector<PackedBatch> batches = held_out_batches(*source, part.tokens, most);
    if (part.data.on_policy) {
      held_out.push_back(std::make_unique<OnPolicyLoss>(name, objective, std::move(batches), sampler,
                                                        on_policy(config, part.data, models, place + ".on_policy"), most));
    } else {
      held_out.push_back(std::make_unique<HeldOutLoss>(name, objective, std::move(batches)));
    }
  }
  return held_out;
}

// Of the folders whose weights are read anew each time that the run starts: the teacher's, and the student's if some stay frozen.
std::map<std::string, std::string> model_fingerprints(const TrainConfig& config, const RunModels& models,
                                                      const std::string& place) {
  std::map<std::string, std::string> prints;
  for (const std::string& folder : models.teacher_folders) {
    prints[folder] = models.logits ? logits_fingerprint(folder) : folder_fingerprint(resolve_model_folder(folder));
  }
  if (models.student_folder.empty()) return prints;
  const std::set<std::string> trained = trained_names(*models.student, config.training.trainable, place + ": training.trainable");
  if (trained.size() == models.student->parameters().size()) return prints;
  prints[models.student_folder] = folder_fingerprint(resolve_model_folder(models.student_folder));
  return prints;
}

}  // namespace run_parts

std::shared_ptr<const Model> in_dtype(std::shared_ptr<const Model> model, const std::string& dtype, const std::string& place) {
  if (dtype != "fp8") return model;
  require(ops::fp8_device(model->device()), place, ": dtype: found fp8, expected auto on a GPU older than Hopper");
  std::unique_ptr<Model> narrow = model->share();
  narrow->to_fp8();
  return narrow;
}

std::int64_t share_equal_tensors(Model& student, const Model& teacher) {
  std::map<std::string, at::Tensor> known;
  for (const Parameter& parameter : teacher.share()->parameters()) known[parameter.name] = parameter.value;
  std::int64_t bytes = 0;
  student.visit([&](const std::string& name, at::Tensor& value) {
    const auto found = known.find(name);
    if (found == known.end()) return;
    const at::Tensor& other = found->second;
    if (other.scalar_type() != value.scalar_type() || other.device() != value.device() || other.sizes() != value.sizes()) return;
    if (other.const_data_ptr() != value.const_data_ptr() && !at::equal(other, value)) return;
    bytes += static_cast<std::int64_t>(value.nbytes());
    value = other;
  });
  return bytes;
}

RunModels open_models(const TrainConfig& config, const std::string& place) {
  RunModels models;
  const at::Device device = device_of(config.device, place + ": device");
  const at::ScalarType dtype = dtype_of(config.dtype, device);
  if (config.model.pretrained && !config.model.pretrained->path.empty()) {
    models.like = resolve_model_folder(config.model.pretrained->path);
    models.student_folder = config.model.pretrained->path;
  }
  const fs::path tokenizer = config.tokenizer.empty() ? tokenizer_folder(models.like) : fs::path(config.tokenizer);
  if (models.like.empty()) models.like = config.tokenizer;
  if (!config.tokenizer.empty() || fs::exists(tokenizer / "tokenizer.json")) models.tokenizer = Tokenizer::load(tokenizer);

  ModelSourceConfig source = config.model;
  std::int64_t& vocabulary = source.base_model.architecture.vocabulary;
  if (!source.pretrained && vocabulary == 0 && models.tokenizer) vocabulary = models.tokenizer->vocabulary();
  models.student = make_model(source, static_cast<std::uint64_t>(config.seed), device, dtype, place + ": model");
  const HeadConfig& head = config.model.base_model.head;
  if (head.distills() && !config.reference_models.at(head.distillation_model).logits.empty()) {
    const std::string logits_place = concat(place, ": reference_models.", head.distillation_model, ".logits");
    models.teacher_folders = config.reference_models.at(head.distillation_model).logits;
    models.logits = std::make_shared<StoredLogits>(config.reference_models.at(head.distillation_model).logits, logits_place);
    check_logits(*models.logits, head, *models.student, models.tokenizer.get(), logits_place);
  } else if (head.distills()) {
    models.teacher_folders = {config.reference_models.at(head.distillation_model).pretrained.path};
    models.teacher = run_parts::open_teacher(config, models, device, dtype, place);
    require(models.student->config().vocabulary == models.teacher->config().vocabulary, place, ": model: found a vocabulary of ",
            models.student->config().vocabulary, ", expected its teacher's, ", models.teacher->config().vocabulary);
  }
  if (config.model.lora) run_parts::add_lora(config, models, place + ": model");
  return models;
}

std::shared_ptr<const Teacher> RunModels::lecturer() const {
  return logits ? stored_teacher(logits) : teacher ? live_teacher(teacher) : nullptr;
}

std::unique_ptr<Objective> make_objective(const HeadConfig& head, std::shared_ptr<const Teacher> teacher) {
  if (!head.distills()) return std::make_unique<NextToken>(head.z_loss_factor);
  return std::make_unique<Distillation>(std::move(teacher), head.mix());
}

std::unique_ptr<BatchSource> open_source(const DataConfig& data, const std::shared_ptr<const Tokenizer>& tokenizer,
                                         std::int64_t vocabulary, std::uint64_t seed, const std::string& place) {
  std::vector<DataPart> parts = open_data(data, tokenizer, place);
  for (DataPart& part : parts) part.stream = std::make_shared<run_parts::CheckedStream>(part.stream, vocabulary, place);
  return packed_source(std::move(parts), derive_seed(seed, "data"), data);
}

MemoryPlan plan_run(const TrainConfig& config, RunModels& models, const std::string& place) {
  MemoryPlan plan;
  Model& student = *models.student;
  std::set<const void*> counted;  // storage that exists once, however many names it has
  const auto bytes = [&](const at::Tensor& value) {
    return counted.insert(value.const_data_ptr()).second ? static_cast<double>(value.nbytes()) : 0.0;
  };
  const std::unique_ptr<Model> teacher = models.teacher ? models.teacher->share() : nullptr;
  if (teacher) {
    teacher->visit([&](const std::string&, at::Tensor& value) { plan.teacher += value.is_meta() ? 0 : bytes(value); });
    teacher->visit(ParameterVisitor::of_linears(
        [&](const std::string&, Linear& linear) { plan.teacher += static_cast<double>(linear.fp8_bytes()); }));
  }
  const std::set<std::string> trained = trained_names(student, config.training.trainable, place + ": training.trainable");
  double values = 0;
  student.visit([&](const std::string& name, at::Tensor& value) {
    const bool trains = trained.contains(name);  // and moves to memory of its own
    plan.student += trains ? static_cast<double>(value.nbytes()) : bytes(value);
    if (trains) values += static_cast<double>(value.numel());
  });
  plan_training(plan, values, config.training, student.dtype(), student.device());
  plan.activations = activation_bytes(student, models.logits ? nullptr : teacher.get(),
                                      {.tokens = config.training.micro_batch_tokens,
                                       .recompute = recompute_of(config.training.recompute),
                                       .dtype = student.dtype(),
                                       .device = student.device(),
                                       .loss_share = run_parts::loss_share(config.data, models.tokenizer),
                                       .stored_teacher = models.logits != nullptr});
  if (config.data.on_policy) {
    const std::int64_t tokens = config.training.micro_batch_tokens;
    plan.sampling = sampling_cost(*config.data.on_policy, tokens, mean_context(config.data, tokens))
                        .bytes(student, config.data.on_policy->max_sequences);
  }
  return plan;
}

void check_output(const std::string& output, const std::string& place) {
  require(!output.empty(), place, ": output: missing, expected a folder");
  require(!holds_model(output), place, ": output: found ", output, ", the folder of a model, expected one for the results alone");
}

LoopResult run_training(const TrainConfig& config, RunModels& models, const RunOptions& options) {
  check_output(config.output, options.place);
  const auto seed = static_cast<std::uint64_t>(config.seed);
  const std::int64_t vocabulary = models.student->config().vocabulary;
  const std::unique_ptr<Objective> own =
      options.objective ? nullptr : make_objective(config.model.base_model.head, models.lecturer());
  Objective& objective = own ? *own : *options.objective;
  if (own && models.logits && config.model.base_model.head.distills()) {
    check_logits_data(*models.logits, config.data, options.place + ": data");
    for (const auto& [name, part] : config.held_out)
      check_logits_data(*models.logits, part.data, concat(options.place, ": held_out.", name, ".data"));
  }
  std::unique_ptr<BatchSource> source = open_source(config.data, models.tokenizer, vocabulary, seed, options.place + ": data");
  const auto sampler = std::make_shared<TextSampler>(*models.student);  // one for training and evaluations
  if (config.data.on_policy) {
    const std::string place = options.place + ": data.on_policy";
    check_on_policy(config.model.base_model.head, place);
    source = on_policy_source(std::move(source), sampler, run_parts::on_policy(config, config.data, models, place));
  }
  if (options.position) source->restore(*options.position);

  const auto held_out = run_parts::held_out_losses(config, models, objective, own != nullptr, sampler, options.place);
  std::vector<Evaluator*> evaluators = options.evaluators;
  for (const auto& each : held_out) evaluators.push_back(each.get());

  const ExportOptions exported{.max_shard_bytes = shard_bytes(config.shard_size, options.place), .like = models.like};
  std::shared_ptr<const OrderedJson> memory_plan;
  if (own) {
    const MemoryPlan plan = plan_run(config, models, options.place);
    log_info(concat(config.output, ": plans with ", memory_text(plan)));
    memory_plan = std::make_shared<const OrderedJson>(to_json(plan));
  }
  TrainConfig resolved = config;
  resolved.dtype = dtype_word(models.student->dtype());  // auto may be another where the run is continued
  const LoopParts parts{
      .model = *models.student,
      .objective = objective,
      .source = *source,
      .evaluators = evaluators,
      .run = config.output,
      .export_model =
          [exported, lora = config.model.lora.has_value()](Model& model, const fs::path& folder) {
            lora ? export_adapters(model, folder, exported.like) : export_model(model, folder, exported);
          },
      .resolved_config = options.resolved.empty() ? to_yaml(resolved) : options.resolved,
      .seed = derive_seed(seed, "loop"),
      .versions = options.versions,
      .memory_plan = memory_plan,
      .data_fingerprint = data_fingerprint(config.data),
      .model_fingerprints = run_parts::model_fingerprints(config, models, options.place),
      .changes = options.changes,
  };
  return train(config.training, parts);
}

}  // namespace molt
