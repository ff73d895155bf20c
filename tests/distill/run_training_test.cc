#include "distill/run_training.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "distill/rank.h"
#include "distill/support.h"
#include "formats/hugging_face.h"

namespace molt::run_training_test {

using namespace distill_test;

class RunTraining : public Folder {
 protected:
  RunTraining() {
    teacher = new_teacher();
    write_folder(*teacher, folder / "teacher");
    const auto student = teacher->share();
    convert_layers(*student, *teacher, {1}, mamba(), 1, "layers");
    export_model(*student, folder / "student", {.like = folder / "teacher"});
  }

  TrainConfig config(const std::string& student, const std::string& more = "") const {
    return parse<TrainConfig>(concat(R"(
model:
  pretrained: {path: )",
                                     (folder / student).string(), R"(}
  base_model:
    head:
      distillation_model: teacher
      distillation_loss_implementation: reverse_kl
reference_models:
  teacher:
    pretrained:
      format: mistral
      path: )",
                                     (folder / "teacher").string(), R"(
data: {synthetic: {seed: 1}}
training: {steps: 3, micro_batch_tokens: 200, trainable: ["layers.1.*"]}
device: cpu
output: )",
                                     (folder / "run").string(), "\n", more),
                              "train.yaml");
  }

  std::unique_ptr<Model> teacher;
};

TEST_F(RunTraining, ATeacherInEightBitsPredictsAlmostTheSame) {
  TrainConfig same = config("teacher"), narrow = config("teacher");
  narrow.reference_models.at("teacher").dtype = "fp8";
  const PackedBatch batch = PackedBatch::of({{{1, 5, 9, 3, 2, 7, 4, 8}, {}}});
  const auto predict = [&](const TrainConfig& from) {
    const RunModels models = open_models(from, "train.yaml");
    const c10::NoGradGuard no_grad;
    return models.teacher->logits(models.teacher->forward(batch)).log_softmax(-1);
  };
  const at::Tensor whole = predict(same), rounded = predict(narrow);
  const double divergence = (whole.exp() * (whole - rounded)).sum(-1).mean().item<double>();
  EXPECT_GT(divergence, 0);
  EXPECT_LT(divergence, 1e-2);

  RunModels whole_models = open_models(same, "train.yaml"), narrow_models = open_models(narrow, "train.yaml");
  const MemoryPlan whole_plan = plan_run(same, whole_models, "train.yaml"),
                   narrow_plan = plan_run(narrow, narrow_models, "train.yaml");
  EXPECT_LT(narrow_plan.teacher, whole_plan.teacher);
  EXPECT_GT(narrow_plan.teacher, 0.25 * whole_plan.teacher) << "a quarter of fp32, and embedding, head and scales";
}

TEST_F(RunTraining, TheStudentSharesTheTeachersStorage) {
  for (const char* student : {"teacher", "student"}) {
    const RunModels models = open_models(config(student), "train.yaml");
    for (const char* name : {"embedding.weight", "layers.0.mixers.attention.qkv.weight", "layers.1.mlp.down.weight"}) {
      EXPECT_EQ(parameter(*models.student, name).const_data_ptr(), parameter(*models.teacher, name).const_data_ptr())
          << student << " " << name;
    }
  }
}

TEST_F(RunTraining, ThePublishedDistillationRunsAndIsContinued) {
  const TrainConfig distillation = config("student",
                                          "held_out: {test: {data: {synthetic: {split: test}}, tokens: 300}}\n"
                                          "shard_size: 1e-5\n");
  RunModels models = open_models(distillation, "train.yaml");
  const std::string frozen_before = model_fingerprint(*models.teacher);
  const LoopResult result = run_training(distillation, models, {.place = "train.yaml", .versions = {}});
  EXPECT_EQ(result.step, 3);
  EXPECT_TRUE(result.evaluation.contains("test.reverse_kl"));
  EXPECT_EQ(model_fingerprint(*models.teacher), frozen_before);
  const auto exported = load_model(result.checkpoint / "export");
  EXPECT_TRUE(same_weights(*exported, *models.student));
  EXPECT_FALSE(same_weights(*exported, *load_model(folder / "student")));
  EXPECT_TRUE(fs::exists(result.checkpoint / "export" / "tokenizer.json"));
  EXPECT_TRUE(fs::exists(result.checkpoint / "export" / "model.safetensors.index.json"));

  RunModels again = open_models(distillation, "train.yaml");
  EXPECT_EQ(run_training(distillation, again, {.place = "train.yaml", .versions = {}}).step, 3);
  EXPECT_TRUE(same_weights(*again.student, *models.student));
}

// `auto` is bfloat16 on a GPU: such a run goes on with a CPU if --dtype says so.
TEST_F(RunTraining, GoesOnInTheDtypeThatItBeganIn) {
  const auto go_on = [&](const char* dtype) {
    TrainConfig training = config("student");
    training.dtype = dtype;
    RunModels models = open_models(training, "train.yaml");
    return run_training(training, models, {.place = "train.yaml", .versions = {}, .changes = Changes::offer}).step;
  };
  EXPECT_EQ(go_on("auto"), 3);
  EXPECT_NE(read_file(folder / "run/config.yaml").find("\ndtype: float32\n"), std::string::npos);
  EXPECT_EQ(go_on("float32"), 3);
  EXPECT_EQ(
      error_of([&] { go_on("bfloat16"); }),
      concat((folder / "run/config.yaml").string(), ": the run that lies here began with other settings or files: dtype (here ",
             "\"float32\", now \"bfloat16\"); restore them to continue it (--dtype: auto is bfloat16 on a GPU and float32 on ",
             "the CPU), choose another folder, or go on with the new ones by --accept-changes"));
}

// The teacher's content, and the student's where some of its weights stay as they were read.
TEST_F(RunTraining, OtherWeightsUnderAnOldNameAreNoticed) {
  const auto go_on = [](const TrainConfig& config, Changes changes) {
    RunModels models = open_models(config, "train.yaml");
    return run_training(config, models, {.place = "train.yaml", .versions = {}, .changes = changes}).step;
  };
  const auto replace = [&](const char* name) {
    const std::unique_ptr<Model> model = load_model(folder / name);
    Model other(model->config());
    other.initialise({6, 0.15}, at::kCPU, at::kFloat);
    export_model(other, folder / name, {.like = folder / name});
  };
  TrainConfig partly = config("student"), whole = config("student");
  whole.training.trainable = {"*"};
  whole.output = (folder / "whole").string();
  go_on(partly, Changes::refuse);
  go_on(whole, Changes::refuse);

  replace("student");
  const std::string student = error_of([&] { go_on(partly, Changes::refuse); });
  EXPECT_NE(student.find(concat("the content of ", (folder / "student").string(), " (here ")), std::string::npos) << student;
  EXPECT_EQ(go_on(whole, Changes::refuse), 3) << "its checkpoint holds the whole student";
  EXPECT_EQ(go_on(partly, Changes::accept), 3);

  replace("teacher");
  const std::string teacher = error_of([&] { go_on(whole, Changes::offer); });
  EXPECT_NE(teacher.find(concat("the content of ", (folder / "teacher").string(), " (here ")), std::string::npos) << teacher;
  EXPECT_NE(teacher.find("--accept-changes"), std::string::npos) << teacher;
  whole.training.steps = 5;
  EXPECT_EQ(go_on(whole, Changes::accept), 5);
  EXPECT_EQ(go_on(whole, Changes::refuse), 5) << "what was accepted is the run's own now";
}

TEST_F(RunTraining, ANewModelTakesItsVocabularyFromTheTokenizer) {
  const auto fresh = parse<TrainConfig>(concat("tokenizer: ", (folder / "teacher").string(), R"(
device: cpu
model:
  base_model:
    hidden_size: 16
    decoder: {type: fixed, num_blocks: 1, block: {mixer: {type: attention, heads: 2, head_groups: 1, head_size: 8},
              mlp: {intermediate_size: 24}}}
)"));
  EXPECT_EQ(open_models(fresh, "train.yaml").student->config().vocabulary, tokenizer()->vocabulary());
}

TEST_F(RunTraining, MistakesAreNamed) {
  const auto run = [&](const TrainConfig& config) {
    return error_of([&] {
      RunModels models = open_models(config, "train.yaml");
      run_training(config, models, {.place = "train.yaml", .versions = {}});
    });
  };
  EXPECT_EQ(error_of([&] { config("student", "shard_size: 0\n"); }),
            "train.yaml: shard_size: found 0, expected a positive number of GB");
  TrainConfig wrong = config("student");
  wrong.output = "";
  EXPECT_EQ(run(wrong), "train.yaml: output: missing, expected a folder");
  wrong.output = (folder / "teacher").string();
  EXPECT_EQ(run(wrong),
            concat("train.yaml: output: found ", wrong.output, ", the folder of a model, expected one for the results alone"));
  wrong = config("student");
  wrong.reference_models["teacher"].pretrained.path = "";
  EXPECT_EQ(run(wrong), "train.yaml: reference_models.teacher.pretrained.path: missing, expected a Hugging Face folder");
  wrong = config("student");
  wrong.reference_models["teacher"].pretrained.format = "llama";
  EXPECT_NE(run(wrong).find("reference_models.teacher.pretrained.format: found llama"), std::string::npos) << run(wrong);
  wrong = config("student");
  wrong.data.synthetic.reset();
  EXPECT_EQ(run(wrong), "train.yaml: data: found neither path nor synthetic, expected one of them, or a blend");
  wrong = config("student");
  fs::remove(folder / "student/tokenizer.json");
  EXPECT_EQ(run(wrong),
            "train.yaml: data.synthetic: found no tokenizer.json, expected one in the model's folder or in the folder that "
            "`tokenizer` names");
}

TEST_F(RunTraining, ATokenBeyondTheVocabularyIsNamed) {
  DataConfig data;
  data.synthetic.emplace();
  const auto source = open_source(data, tokenizer(), 20, 0, "train.yaml: data");
  const std::string message = error_of([&] { source->next(200); });
  EXPECT_NE(message.find("train.yaml: data: sample "), std::string::npos) << message;
  EXPECT_NE(message.find("expected ids from 0 to 19, which the model's vocabulary holds"), std::string::npos) << message;
}

}  // namespace molt::run_training_test
