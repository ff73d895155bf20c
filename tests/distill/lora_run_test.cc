// Runs that train adapters alone, fine-tuning and distilling: what moves, what is saved, and how they go on.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "distill/run_training.h"
#include "distill/support.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"

namespace molt::lora_run_test {

using namespace distill_test;

constexpr const char* kDistil = "{distillation_model: teacher, distillation_loss_implementation: reverse_kl}";
constexpr const char* kFineTune = "{}";

// Fails in its second call, as a run may that is out of memory.
class Failing : public Evaluator {
 public:
  std::string name() const override { return "failing"; }
  std::map<std::string, double> evaluate(const Model&) override {
    if (++calls_ == 2) throw std::runtime_error("the second evaluation");
    return {};
  }

 private:
  int calls_ = 0;
};

class LoraRun : public Folder {
 protected:
  LoraRun() {
    const auto teacher = new_teacher();
    write_folder(*teacher, folder / "teacher");
    const auto student = teacher->share();
    convert_layers(*student, *teacher, {1}, mamba(), 1, "layers");
    export_model(*student, folder / "student", {.like = folder / "teacher"});
  }

  TrainConfig config(const std::string& lora, const std::string& head = kFineTune, const std::string& run = "run") const {
    return parse<TrainConfig>(
        concat("model:\n  pretrained: {path: ", (folder / "student").string(), "}\n  base_model: {head: ", head,
               "}\n  lora: ", lora, "\nreference_models: {teacher: {pretrained: {path: ", (folder / "teacher").string(),
               "}}}\ndata: {synthetic: {seed: 1}}\ntraining: {steps: 6, micro_batch_tokens: 200, evaluate_every: 2, ",
               "checkpoint_every: 2, optimizer: {learning_rate: 1e-2}, schedule: {warmup: 1}}\ndevice: cpu\noutput: ",
               (folder / run).string()),
        "train.yaml");
  }

  static LoopResult train(const TrainConfig& config, RunModels& models, Evaluator* evaluator = nullptr) {
    RunOptions options{.place = "train.yaml", .versions = {}};
    if (evaluator) options.evaluators = {evaluator};
    return run_training(config, models, options);
  }
  static LoopResult train(const TrainConfig& config) {
    RunModels models = open_models(config, "train.yaml");
    return train(config, models);
  }
};

TEST_F(LoraRun, LeavesAdaptersThatAreTheTrainedModel) {
  for (const char* head : {kFineTune, kDistil}) {
    const TrainConfig lora = config("{rank: 4, alpha: 8}", head, head == kDistil ? "distilled" : "tuned");
    RunModels models = open_models(lora, "train.yaml");
    const std::unique_ptr<Model> before = load_model(folder / "student");
    const PackedBatch batch = random_batch({9, 14});
    EXPECT_EQ(difference(models.student->forward(batch), before->forward(batch)), 0) << "B is zero at first";
    const LoopResult result = train(lora, models);
    for (const Parameter& parameter : before->parameters()) {
      EXPECT_TRUE(at::equal(distill_test::parameter(*models.student, parameter.name), parameter.value)) << parameter.name;
    }
    const fs::path exported = result.checkpoint / "export";
    EXPECT_FALSE(fs::exists(exported / "model.safetensors"));
    EXPECT_TRUE(fs::exists(exported / "tokenizer.json"));
    EXPECT_EQ(PeftAdapter::open(exported).base, folder / "student");
    const at::Tensor trained = models.student->forward(batch);
    EXPECT_GT(difference(trained, before->forward(batch)), 1e-3);
    EXPECT_LT(difference(trained, load_model(resolve_model_folder(lora.output))->forward(batch)), 1e-5);
  }
}

TEST_F(LoraRun, TheTeacherOfTheSameFolderHasNoAdapters) {
  TrainConfig lora = config("{rank: 4}", kDistil);
  lora.reference_models["teacher"].pretrained.path = (folder / "student").string();
  const RunModels models = open_models(lora, "train.yaml");
  EXPECT_FALSE(projections(*models.student).front().linear->adapters.empty());
  EXPECT_EQ(models.teacher->share()->parameters().size(), load_model(folder / "student")->parameters().size());
  const std::string base = "layers.0.mixers.attention.qkv.weight";
  EXPECT_EQ(parameter(*models.student, base).const_data_ptr(), parameter(*models.teacher, base).const_data_ptr());
}

TEST_F(LoraRun, GoesOnBitForBitAfterAFailure) {
  const TrainConfig straight = config("{rank: 3}", kDistil, "straight"), broken = config("{rank: 3}", kDistil, "broken");
  RunModels first = open_models(broken, "train.yaml");
  Failing failing;
  EXPECT_THROW(train(broken, first, &failing), std::runtime_error);
  const auto whole = PeftAdapter::open(train(straight).checkpoint / "export");
  const auto resumed = PeftAdapter::open(train(broken).checkpoint / "export");
  ASSERT_EQ(whole.updates.size(), resumed.updates.size());
  for (const auto& [module, update] : whole.updates) {
    EXPECT_TRUE(at::equal(update.A, resumed.updates.at(module).A) && at::equal(update.B, resumed.updates.at(module).B)) << module;
  }
}

TEST_F(LoraRun, TrainsTheChosenProjectionsAndGoesOnFromAFolder) {
  const LoopResult result = train(config("{rank: 2, targets: [q_proj, in_proj, '!model.layers.3.*']}"));
  const PeftAdapter adapter = PeftAdapter::open(result.checkpoint / "export");
  std::vector<std::string> modules;
  for (const auto& [module, update] : adapter.updates) modules.push_back(module);
  EXPECT_EQ(modules, (std::vector<std::string>{"model.layers.0.self_attn.q_proj", "model.layers.1.mixer.in_proj",
                                               "model.layers.2.self_attn.q_proj"}));
  const TrainConfig further = config(concat("{start: ", (folder / "run").string(), "}"), kFineTune, "further");
  const RunModels models = open_models(further, "train.yaml");
  const at::Tensor started = distill_test::parameter(*models.student, "layers.0.mixers.attention.qkv.q.lora_B");
  EXPECT_TRUE(at::equal(started, adapter.updates.at("model.layers.0.self_attn.q_proj").B));
}

TEST_F(LoraRun, MistakesAreNamed) {
  const auto error = [&](const TrainConfig& config) { return error_of([&] { open_models(config, "train.yaml"); }); };
  EXPECT_EQ(
      error(config("{targets: [q_prj]}")),
      "train.yaml: model.lora.targets: found \"q_prj\", which is no projection of this model's layers: down_proj, dt_in_proj, "
      "dt_proj, gate_proj, in_proj, k_proj, o_proj, out_proj, q_proj, up_proj, v_proj (did you mean \"q_proj\"?)");
  EXPECT_EQ(error(config(concat("{start: ", (folder / "teacher").string(), "}"))),
            concat("train.yaml: model.lora.start: found ", (folder / "teacher").string(), ", which holds no adapters"));
  EXPECT_EQ(error_of([&] { config("{rank: 0}"); }), "train.yaml: model.lora: rank: found 0, expected at least 1");
  train(config("{rank: 2}"));
  TrainConfig twice = config("{rank: 2}");
  twice.model.pretrained->path = (folder / "run").string();
  EXPECT_NE(error(twice).find("which holds adapters itself; expected whole weights"), std::string::npos) << error(twice);
}

}  // namespace molt::lora_run_test
