#include "distill/recipe.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/error.h"
#include "base/folder_lock.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/random.h"
#include "distill/check_logits.h"
#include "distill/model_card.h"
#include "distill/objective.h"
#include "distill/on_policy.h"
#include "distill/plan.h"
#include "distill/recipe_index.h"
#include "distill/run_training.h"
#include "evaluate/evaluate.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "ops/device.h"
#include "train/checkpoint.h"
#include "train/resolved_config.h"

namespace molt {

namespace recipe_run {

// Who continues the samples does not change which ones are read.
std::string position_key(DataConfig data) {
  data.on_policy.reset();
  return to_yaml(data);
}

std::string length_words(const LoopConfig& loop) {
  const std::string most =
      loop.tokens > 0 ? human_count(static_cast<double>(loop.tokens)) + " tokens" : counted(loop.steps, "step");
  return loop.flat.window > 0 ? concat("at most ", most, ", until the loss is flat") : most;
}

class RecipeRun {
 public:
  RecipeRun(const RecipeConfig& config, const RecipeOptions& options)
      : config_(config),
        options_(options),
        output_(config.output),
        device_(device_of(config.device, options.place + ": device")),
        dtype_(dtype_of(config.dtype, device_)),
        teacher_folder_(resolve_model_folder(config.teacher.pretrained.path)),
        teacher_(load_pretrained(config.teacher.pretrained, device_, dtype_, options.place + ": teacher.pretrained")),
        lecturer_(in_dtype(teacher_, config.teacher.dtype, options.place + ": teacher")),
        teacher_print_(model_fingerprint(*teacher_)),
        lock_(output_),
        index_(config, options.place) {
    const fs::path tokenizer = config.tokenizer.empty() ? teacher_folder_ : fs::path(config.tokenizer);
    if (!config.tokenizer.empty() || fs::exists(tokenizer / "tokenizer.json")) tokenizer_ = Tokenizer::load(tokenizer);
    if (!config.teacher.logits.empty()) open_logits();
  }

  void run() {
    for (const StageConfig& stage : config_.stages) {
      if (config_.data_of(stage).on_policy) check_on_policy(stage.head, place(stage) + ": data.on_policy");
      check_unchanged(stage);
    }
    check_disk();
    OrderedJson& teacher = index_.teacher();
    teacher["path"] = config_.teacher.pretrained.path;
    teacher["layout"] = teacher_->config().layout();
    std::int64_t parameters = 0;
    for (const Parameter& parameter : teacher_->share()->parameters()) parameters += parameter.value.numel();
    teacher["parameters"] = parameters;
    index_.write();
    score(teacher, "teacher", [&] { return teacher_->share(); });
    for (std::size_t i = 0; i < config_.stages.size(); ++i) {
      throw_if_interrupted();
      run_stage(config_.stages[i], concat("stage ", config_.stages[i].name, " (", i + 1, " of ", config_.stages.size(), ")"));
    }
  }

 private:
  fs::path folder(const std::string& stage) const { return output_ / stage; }
  std::string place(const StageConfig& stage) const { return concat(options_.place, ": stage ", stage.name); }
  std::uint64_t seed(const StageConfig& stage) const { return derive_seed(static_cast<std::uint64_t>(config_.seed), stage.name); }
  // Everything that a stage's result follows from.
  std::string resolved(StageConfig stage) const {
    RecipeConfig whole = config_;
    whole.dtype = dtype_word(dtype_);  // auto may be another where the run is continued
    std::string print = teacher_print_;
    return to_yaml(ConfigVisitor::Visit([&](ConfigVisitor& v) {
      v.field("teacher", print, "");
      v.field("logits", whole.teacher.logits, "");
      v.field("seed", whole.seed, "");
      v.field("dtype", whole.dtype, "");
      v.field("data", whole.data, "");
      v.field("held_out", whole.held_out, "");
      v.field("stage", stage, "");
    }));
  }

  void open_logits() {
    const std::string place = options_.place + ": teacher.logits";
    logits_ = std::make_shared<StoredLogits>(config_.teacher.logits, place);
    require(logits_->about().teacher == teacher_print_, place, ": found logits of another teacher than ",
            config_.teacher.pretrained.path, " in ", dtype_word(dtype_), ": ", logits_->about().teacher, ", expected ",
            teacher_print_);
    for (const StageConfig& stage : config_.stages) {
      if (!stage.head.distills()) continue;
      check_logits(*logits_, stage.head, *teacher_, tokenizer_.get(), place);
      check_logits_data(*logits_, config_.data_of(stage), this->place(stage) + ": data");
    }
  }

  // The configuration that a stage was last continued with.
  fs::path kept_in(const StageConfig& stage) {
    for (const char* part : {"run", "match"}) {
      const fs::path run = folder(stage.name) / part;
      if (!index_.finished(stage.name) && fs::exists(run / "config.yaml")) return run;
    }
    return folder(stage.name);
  }

  void check_unchanged(const StageConfig& stage) {
    const fs::path kept = kept_in(stage);
    std::vector<ChangedKey> changes = changed_results(kept, resolved(stage));
    if (other_dtype(changes)) std::erase_if(changes, [](const ChangedKey& key) { return key.path == "teacher"; });
    for (ChangedKey& key : changes) {
      if (key.path == "teacher")
        key.path = concat("the content of ", config_.teacher.pretrained.path, " in ", dtype_word(dtype_));
    }
    require_unchanged(kept, changes, options_.changes);
    if (changes.empty() || !index_.finished(stage.name)) return;
    log_warning(concat(place(stage), ": is finished and stays as it was made: ", changes_text(changes)));
  }

  void check_disk() {
    double needed = 0;
    const RecipePlan plan = plan_recipe(config_, teacher_->config(), options_.place);
    for (const StagePlan& stage : plan.stages) {
      if (!index_.finished(stage.name)) needed += stage.disk;
    }
    fs::create_directories(output_);
    const auto space = static_cast<double>(fs::space(output_).available);
    require(needed <= space, output_.string(), ": found ", human_bytes(space), " of free disk, expected ", human_bytes(needed),
            " for checkpoints and exports; fewer training.keep_checkpoints need less");
    log_info(concat(output_.string(), ": needs up to ", human_bytes(needed), " of disk, ", human_bytes(space), " are free"));
  }

  std::unique_ptr<Model> open(const std::string& stage) const {
    if (stage == "teacher") return teacher_->share();
    std::unique_ptr<Model> model = load_model(folder(stage) / "export", {device_, dtype_});
    share_equal_tensors(*model, *teacher_);
    return model;
  }

  void run_stage(const StageConfig& stage, const std::string& title) {
    OrderedJson& entry = index_.stage(stage.name);
    if (!index_.finished(stage.name)) {
      train_stage(stage, title, entry);
    } else {
      log_info(title + ": finished");
    }
    score(entry, stage.name, [&] { return open(stage.name); });
    write_results(stage.name);
  }

  // What the export says of itself. Throughput is known when `molt bench --json` of these exports lies beside the index.
  void write_results(const std::string& stage) const {
    const fs::path exported = folder(stage) / "export";
    if (!fs::exists(exported)) return;  // moved away since it was finished
    write_json(exported / "scores.json", stage_scores(index_.json(), stage));
    const fs::path bench = output_ / "bench.json";
    const Json measured = fs::exists(bench) ? read_json(bench) : Json();
    write_file(exported / "README.md", model_card_text(stage_card(index_.json(), stage, measured)));
  }

  void train_stage(const StageConfig& stage, const std::string& title, OrderedJson& entry) {
    RunModels models{open(stage.from), lecturer_, tokenizer_, teacher_folder_, logits_};
    models.teacher_folders = config_.teacher.logits;
    if (stage.from != "teacher") models.student_folder = (folder(stage.from) / "export").string();
    if (!stage.restore.empty()) restore_layers(*models.student, *teacher_, stage.restore, place(stage) + ": restore");
    const auto before = static_cast<std::int64_t>(attention_layers(teacher_->config()).size() -
                                                  attention_layers(models.student->config()).size());
    const std::int64_t fresh = stage.mamba_layers - before;
    log_info(concat(title, ": from ", stage.from, ", ", fresh > 0 ? concat(before, " -> ") : "",
                    counted(stage.mamba_layers, "Mamba layer"), " of ", models.student->config().num_layers(),
                    fresh > 0 ? concat(", chosen by ", stage.choose.method) : "", ", ",
                    stage.head.distills() ? stage.head.divergence_name() : "next-token loss",
                    stage.lora ? ", by low-rank adapters" : "", ", ", length_words(stage.training)));
    fs::create_directories(folder(stage.name));
    if (!fs::exists(folder(stage.name) / "config.yaml")) keep_resolved_config(folder(stage.name), resolved(stage), false);
    entry["status"] = "running";
    if (!stage.restore.empty()) entry["restored"] = stage.restore;
    index_.write();

    std::int64_t tokens = 0;
    double seconds = 0;
    const auto account = [&](const LoopResult& result) {
      const Checkpoint last = read_checkpoint(result.checkpoint);
      tokens += last.tokens;
      seconds += last.seconds;
      return last.data;
    };
    std::shared_ptr<const Json> position = start_of_data(stage);
    if (fresh > 0) {
      const std::vector<std::int64_t> layers = choose(stage, models, fresh, entry);
      convert_layers(*models.student, *teacher_, layers, stage.convert, seed(stage), place(stage));
      entry["converted"] = layers;
      entry["layout"] = models.student->config().layout();
      index_.write();
      if (stage.match) {
        entry["match"] = stage.name + "/match";
        position = account(match(stage, models, layers, position));
      }
    }
    entry["layout"] = models.student->config().layout();
    entry["run"] = stage.name + "/run";
    if (stage.lora) {
      models.like =
          stage.from == "teacher" ? teacher_folder_ : folder(stage.from) / "export";  // the weights beneath the adapters
      add_adapters(*models.student, *stage.lora, derive_seed(seed(stage), "lora"), place(stage) + ": lora");
    }
    index_.write();
    const LoopResult result = run_training(train_config(stage, stage.training, "run"), models, run_options(stage, position));
    account(result);
    keep_resolved_config(folder(stage.name), resolved(stage), false);
    if (stage.lora) entry["adapted"] = stage.lora->exported;
    export_stage(stage, models);

    const std::int64_t earlier = stage.from == "teacher" ? 0 : index_.stage(stage.from).value("total_tokens", std::int64_t{0});
    entry["export"] = stage.name + "/export";
    entry["tokens"] = tokens;
    entry["total_tokens"] = earlier + tokens;
    entry["loss"] = result.loss;
    entry["evaluation"] = result.evaluation;
    entry["seconds"] = seconds;
    entry["status"] = "finished";
    index_.write();
  }

  void export_stage(const StageConfig& stage, RunModels& models) const {
    const fs::path exported = folder(stage.name) / "export";
    if (stage.lora && stage.lora->exported == "adapters") {
      export_adapters(*models.student, exported, models.like);
      return;
    }
    models.student->merge_adapters();
    export_model(*models.student, exported,
                 {.max_shard_bytes = shard_bytes(config_.shard_size, "shard_size"), .like = teacher_folder_});
  }

  // Where the stage before stopped reading the same data.
  std::shared_ptr<const Json> start_of_data(const StageConfig& stage) const {
    const StageConfig* before = config_.find(stage.from);
    if (!before || position_key(config_.data_of(*before)) != position_key(config_.data_of(stage))) return nullptr;
    const std::vector<fs::path> checkpoints = list_checkpoints(folder(before->name) / "run");
    require(!checkpoints.empty(), (folder(before->name) / "run").string(), ": found no checkpoint, expected the run of stage ",
            before->name);
    return read_checkpoint(checkpoints.front()).data;
  }

  TrainConfig train_config(const StageConfig& stage, const LoopConfig& loop, const char* part) const {
    TrainConfig config;
    config.model.base_model.head = stage.head;
    if (stage.lora) config.model.lora = *stage.lora;
    config.data = config_.data_of(stage);
    config.held_out = config_.held_out;
    config.training = loop;
    // One order of the data for all stages that read it, in which each goes on.
    config.seed = config_.seed;
    config.output = (folder(stage.name) / part).string();
    config.shard_size = config_.shard_size;
    return config;
  }

  RunOptions run_options(const StageConfig& stage, std::shared_ptr<const Json> position) const {
    return {.place = place(stage),
            .versions = options_.versions,
            .position = std::move(position),
            .resolved = resolved(stage),
            .changes = options_.changes};
  }

  LoopResult match(const StageConfig& stage, RunModels& models, const std::vector<std::int64_t>& layers,
                   const std::shared_ptr<const Json>& position) const {
    MixerMatching objective(teacher_, layers);
    TrainConfig config = train_config(stage, *stage.match, "match");
    config.data.on_policy.reset();  // new mixers have nothing to say yet
    config.training.trainable =
        MixerMatching::trainable(*models.student, layers, stage.match->trainable, concat(place(stage), ": match.trainable"));
    RunOptions options = run_options(stage, position);
    options.objective = &objective;
    return run_training(config, models, options);
  }

  // The order of the nearest ranking on the way to a stage.
  std::vector<std::int64_t> earlier_order(const StageConfig& stage) const {
    for (const StageConfig* at = config_.find(stage.from); at; at = config_.find(at->from)) {
      if (const fs::path file = folder(at->name) / "ranking.json"; fs::exists(file)) return read_ranking(file).order;
    }
    fail(place(stage), ": choose.candidates: found no ranking in an earlier stage to take them from");
  }

  std::vector<std::int64_t> choose(const StageConfig& stage, const RunModels& models, std::int64_t count, OrderedJson& entry) {
    std::vector<std::int64_t> open = attention_layers(models.student->config());
    std::erase_if(open, [&](std::int64_t layer) { return std::count(stage.restore.begin(), stage.restore.end(), layer) > 0; });
    const auto first_open = [&](const std::vector<std::int64_t>& order, std::int64_t wanted) {
      std::vector<std::int64_t> chosen;
      for (const std::int64_t layer : order) {
        if (std::ssize(chosen) < wanted && std::binary_search(open.begin(), open.end(), layer)) chosen.push_back(layer);
      }
      require(std::ssize(chosen) == wanted, place(stage), ": choose: found ",
              counted(std::ssize(chosen), "layer that is still attention", "layers that are still attention"), ", expected ",
              wanted, " to choose from");
      return chosen;
    };
    // What a stage has chosen stays, even if it would choose otherwise now.
    if (options_.changes == Changes::accept && entry.contains("converted") && std::ssize(entry["converted"]) == count) {
      return entry["converted"];
    }
    entry["method"] = stage.choose.method;
    if (stage.choose.method == "list") return first_open(stage.choose.layers, count);

    RankConfig rank = stage.choose.rank;
    rank.method = stage.choose.method;
    if (rank.data.path.empty() && !rank.data.synthetic) rank.data = config_.data_of(stage);
    if (rank.seed == 0) rank.seed = config_.seed;
    if (rank.count == 0) rank.count = count;
    if (stage.choose.candidates > 0) {
      rank.layers = first_open(earlier_order(stage), std::min(stage.choose.candidates, static_cast<std::int64_t>(open.size())));
    } else if (rank.layers.empty() && !stage.restore.empty()) {
      rank.layers = open;  // not what was just restored
    }
    entry["ranking"] = stage.name + "/ranking.json";
    const RankInputs inputs{*models.student, teacher_, tokenizer_, place(stage) + ": choose", teacher_folder_};
    return first_open(rank_layers(rank, inputs, folder(stage.name) / "ranking.json").order, count);
  }

  void score(OrderedJson& entry, const std::string& name, const std::function<std::unique_ptr<Model>()>& open_model) {
    std::unique_ptr<Model> model;
    for (const auto& [task_name, task] : config_.evaluate) {
      if (entry.contains("scores") && entry["scores"].contains(task_name)) continue;
      require(tokenizer_ != nullptr, options_.place, ": evaluate: found no tokenizer.json beside the teacher");
      const fs::path output = folder(name) / "scores" / task_name;
      keep_resolved_config(output, to_yaml(task), fs::exists(output / "config.yaml"));
      if (!model) model = open_model();
      const OrderedJson result =
          evaluate_task(*model, tokenizer_, task,
                        {.output = output, .identity = model_fingerprint(*model), .template_folder = teacher_folder_});
      entry["scores"][task_name] = result;
      index_.write();
      log_info(concat(name, ": ", task_name, " ", score_text(result)));
    }
  }

  const RecipeConfig& config_;
  const RecipeOptions& options_;
  fs::path output_;
  at::Device device_;
  at::ScalarType dtype_;
  fs::path teacher_folder_;
  std::shared_ptr<const Model> teacher_;
  std::shared_ptr<const Model> lecturer_;  // the teacher as its predictions are learnt from: in its configuration's dtype
  std::string teacher_print_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const StoredLogits> logits_;  // learnt from in the teacher's place; null: none
  const FolderLock lock_;
  RecipeIndex index_;
};

}  // namespace recipe_run

void run_recipe(const RecipeConfig& config, const RecipeOptions& options) {
  check_output(config.output, options.place);
  require(!config.stages.empty(), options.place, ": stages: found none, expected at least one");
  require(!config.teacher.pretrained.path.empty(), options.place, ": teacher.pretrained.path: missing, expected its folder");
  recipe_run::RecipeRun(config, options).run();
}

}  // namespace molt
