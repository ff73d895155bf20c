// Logits on disk: written and read again, whatever the order; distilled from as from the teacher itself; refused where they are
// not of what is read.
#include "distill/stored_logits.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "base/interrupt.h"
#include "data/packed_source.h"
#include "data/prepare.h"
#include "data/sample_stream.h"
#include "distill/objective.h"
#include "distill/recipe.h"
#include "distill/support.h"
#include "distill/write_logits.h"
#include "formats/hugging_face.h"
#include "formats/safetensors.h"

namespace molt::stored_logits_test {

using namespace distill_test;

class StoredLogitsTest : public Folder {
 protected:
  StoredLogitsTest() : teacher(new_teacher()) {
    write_folder(*teacher, folder / "teacher");
    prepare_data("data", 40);
    prepare_data("other", 9);
  }

  // Samples of 2 to 40 tokens, of which a third is learned; shards of few of them.
  void prepare_data(const std::string& name, int samples) const {
    std::string lines;
    for (int i = 0; i < samples; ++i) {
      Json tokens = Json::array(), learn = Json::array();
      for (int t = 0; t < 2 + (i * 7 + samples) % 39; ++t) {
        tokens.push_back((i * 31 + t * 17 + t * t) % teacher->config().vocabulary);
        learn.push_back((i + t) % 3 == 0 ? 1 : 0);
      }
      lines += to_line(Json{{"tokens", tokens}, {"learn", learn}}) + "\n";
    }
    write_file(folder / (name + ".jsonl"), lines);
    prepare(
        {.input = {folder / (name + ".jsonl")}, .tokenizer = folder / "teacher", .output = folder / name, .shard_tokens = 300});
  }

  LogitsManifest write(const std::string& data, const WriteLogitsOptions& options) const {
    return write_top_logits(*teacher, tokenizer().get(), folder / data, folder / (data + "-logits"), options);
  }
  std::shared_ptr<const StoredLogits> open(const std::vector<std::string>& data) const {
    std::vector<std::string> folders;
    for (const std::string& name : data) folders.push_back(folder / (name + "-logits"));
    return std::make_shared<StoredLogits>(folders, "train.yaml: reference_models.teacher.logits");
  }
  DataConfig both() const {
    return parse<DataConfig>(concat("blend: {a: {path: ", (folder / "data").string(), ", weight: 2}, b: {path: ",
                                    (folder / "other").string(), "}}\nmax_length: 30\npacking: best_fit"));
  }

  std::shared_ptr<Model> teacher;
};

// Small shards, and batches that end in the middle of a data shard.
WriteLogitsOptions small(std::int64_t k) {
  return {.k = k, .batch_tokens = 50, .shard_bytes = 2000};
}

TEST_F(StoredLogitsTest, EveryTokenFindsItsRowInAnyOrder) {
  const std::int64_t k = 5;
  const LogitsManifest written = write("data", small(k));
  write("other", small(k));
  EXPECT_GT(written.checksums.size(), 3u);
  EXPECT_EQ(written.samples, 40);
  const auto logits = open({"other", "data"});
  const auto source = open_source(both(), tokenizer(), teacher->config().vocabulary, 3, "data");
  std::int64_t compared = 0;
  for (int i = 0; i < 12; ++i) {
    const PackedBatch batch = source->next(i % 2 ? 90 : 64);
    const ops::TopProbabilities rows = logits->rows(batch);
    const at::Tensor all = at::log_softmax(teacher->logits(teacher->forward(batch)), 1);
    const at::Tensor learned = batch.loss_tokens;
    compared += learned.numel();
    const at::Tensor found = rows.log_probs.index_select(0, learned).to(at::kFloat), ids = rows.ids.index_select(0, learned);
    const at::Tensor expected = all.index_select(0, learned).gather(1, ids.to(at::kLong));
    EXPECT_TRUE(at::allclose(found.slice(1, 0, k), expected, 2e-3, 1e-3));
    EXPECT_TRUE(at::allclose(found.exp().sum(1), at::ones({learned.numel()}), 0, 2e-3));
    EXPECT_EQ(rows.log_probs.isnan().all(1).sum().item<std::int64_t>(), batch.size() - learned.numel());
  }
  EXPECT_GT(compared, 200);
}

TEST_F(StoredLogitsTest, WideIdsForLargeVocabularies) {
  LogitsManifest manifest;
  manifest.k = 64;
  manifest.vocabulary = 65536;
  EXPECT_EQ(manifest.row_bytes(), 64 * 4 + 6);
  manifest.vocabulary = 131072;
  EXPECT_EQ(manifest.row_bytes(), 64 * 6 + 6);
}

TEST_F(StoredLogitsTest, TeachesAlmostWhatTheTeacherItselfDoes) {
  const std::int64_t vocabulary = teacher->config().vocabulary;
  write("data", small(vocabulary));
  write("other", small(vocabulary));
  const std::unique_ptr<Model> student = teacher->share();
  convert_layers(*student, *teacher, {1, 2}, mamba(), 1, "layers");
  const PackedBatch batch = open_source(both(), tokenizer(), vocabulary, 3, "data")->next(200);
  for (const ops::LossMix& mix :
       {ops::LossMix{.reverse_kl = 1}, {.forward_kl = 1}, {.cross_entropy = 0.3, .forward_kl = 0.5, .jsd = 1}}) {
    const auto loss = [&](const std::shared_ptr<const Teacher>& from) {
      return Distillation(from, mix).loss(*student, batch, Recompute::none).sum.item<double>();
    };
    const double exact = loss(live_teacher(teacher));
    EXPECT_GT(exact, 1e-3);
    EXPECT_NEAR(loss(stored_teacher(open({"data", "other"}))), exact, 2e-3 * exact);
  }
  EXPECT_EQ(Distillation(stored_teacher(open({"data"})), {.reverse_kl = 1}).flops(*student, 50), NextToken().flops(*student, 50));
}

// Stopped and continued, the same bytes lie in the same rows.
TEST_F(StoredLogitsTest, AnInterruptedCallIsContinued) {
  write("data", small(6));
  const auto whole = open({"data"});
  fs::rename(folder / "data-logits", folder / "whole");
  const auto interrupted = [&] {
    catch_interrupts();
    std::raise(SIGTERM);
    try {
      write("data", small(6));
    } catch (const Interrupted&) {
      _exit(7);
    }
    _exit(0);
  };
  for (int batch = 0; batch < 3; ++batch) EXPECT_EXIT(interrupted(), testing::ExitedWithCode(7), "");
  EXPECT_EQ(LogitsManifest::read(folder / "data-logits").checksums.size(), 3u);
  EXPECT_NE(error_of([&] { open({"data"}); }).find("the logits are incomplete"), std::string::npos);
  EXPECT_TRUE(write("data", small(6)).complete);
  const auto parts = open({"data"});
  const PackedBatch batch =
      open_source(parse<DataConfig>("path: " + (folder / "data").string()), tokenizer(), teacher->config().vocabulary, 1, "data")
          ->next(2000);
  const ops::TopProbabilities a = whole->rows(batch), b = parts->rows(batch);
  EXPECT_TRUE(a.ids.equal(b.ids));
  EXPECT_TRUE(at::allclose(a.log_probs, b.log_probs, 0, 0, /*equal_nan=*/true));
}

TEST_F(StoredLogitsTest, AKillCostsNoMoreThanAFilesTime) {
  WriteLogitsOptions options = small(6);
  options.shard_bytes = 1 << 28;
  EXPECT_EQ(write("other", options).checksums.size(), 1u);
  options.shard_seconds = 0;
  EXPECT_GT(write("data", options).checksums.size(), 5u);
}

TEST_F(StoredLogitsTest, AFinishedFolderIsLeftAsItIs) {
  write("data", small(6));
  const auto time = fs::last_write_time(folder / "data-logits" / "shard-00000.safetensors");
  EXPECT_TRUE(write("data", small(6)).complete);
  EXPECT_EQ(fs::last_write_time(folder / "data-logits" / "shard-00000.safetensors"), time);
}

TEST_F(StoredLogitsTest, MistakesAreNamed) {
  const std::string logits = (folder / "data-logits").string();
  write("data", small(6));
  const auto starts = [](const std::string& text, const std::string& begin) { EXPECT_EQ(text.substr(0, begin.size()), begin); };
  starts(error_of([&] { write("data", small(7)); }), logits + ": holds logits of another k: found 6, expected 7");
  starts(error_of([&] { write_top_logits(*new_teacher(4, 9), nullptr, folder / "data", logits, small(6)); }),
         logits + ": holds logits of another teacher: found ");
  starts(error_of([&] { write_top_logits(*teacher, nullptr, folder / "other", logits, small(6)); }),
         logits + ": holds logits of another data set: found ");
  starts(error_of([&] { write("other", small(10000)); }), "--top-k: found 10000, expected a number from 1 to ");
  starts(error_of([&] { open({"other"}); }), (folder / "other-logits").string() + ": found no manifest.json");
  write("other", small(7));
  starts(error_of([&] { open({"data", "other"}); }), "train.yaml: reference_models.teacher.logits: found logits of teacher ");
  starts(error_of([&] { open({"data"})->require_data(folder / "other", "train.yaml: held_out.test.data.path"); }),
         "train.yaml: held_out.test.data.path: found data ");

  const fs::path shard = folder / "data-logits" / "shard-00001.safetensors";
  std::string content = read_file(shard);
  content.back() = static_cast<char>(content.back() ^ 1);
  write_file(shard, content);
  starts(error_of([&] { open({"data"}); }), shard.string() + ": the content is damaged: found the checksum ");
}

// Folders whose checksums agree and whose content could not have been written.
TEST_F(StoredLogitsTest, WhatCannotBeIsRefused) {
  write("data", small(6));
  const fs::path logits = folder / "data-logits", path = logits / "manifest.json", shard = logits / "shard-00000.safetensors";
  const Json good = read_json(path);
  const auto refused = [&](const Json& manifest, const std::string& begin) {
    write_json(path, manifest);
    const std::string error = error_of([&] { open({"data"}); });
    EXPECT_EQ(error.substr(0, begin.size()), begin);
    write_json(path, good);
  };
  const auto with = [&](const char* key, const Json& value) {
    Json manifest = good;
    manifest[key] = value;
    return manifest;
  };
  const std::string place = path.string();
  for (const char* data : {"", "sixteen letters.", "-123456789012345", "0x34567890123456", "12345678901234567"})
    refused(with("data", data), place + ": data: found \"" + data + "\", expected 16 hexadecimal digits");
  refused(with("k", 0), place + ": k: found 0, expected 1 to ");
  refused(with("k", -5), place + ": k: found -5, expected 1 to ");
  refused(with("k", 100000), place + ": k: found 100000, expected 1 to ");
  refused(with("vocabulary", std::int64_t{1} << 40), place + ": vocabulary: found 1099511627776, expected 1 to 2147483647");
  refused(with("rows", -1), place + ": rows: found -1, expected 0 to ");
  refused(with("rows", 7), logits.string() + ": found ");
  refused(with("samples", -1), place + ": samples: found -1, expected 0 to ");
  refused(with("samples", 41), logits.string() + "/shard-");
  refused(with("temperature", 0), place + ": temperature: found 0, expected a positive number");
  refused(with("checksums", Json::array()), place + ": first_samples: found ");
  Json starts = good["first_samples"];
  const auto first = [&](std::size_t shard_number, std::int64_t value) {
    Json changed = starts;
    changed[shard_number] = value;
    return with("first_samples", changed);
  };
  refused(first(0, 1), place + ": first_samples: found 1, expected numbers that rise from 0 ");
  refused(first(0, -1), place + ": first_samples: found -1, expected numbers that rise from 0 ");
  refused(first(1, 0), place + ": first_samples: found 0, expected numbers that rise from 0 ");
  refused(first(1, 1000), place + ": first_samples: found 1000, expected numbers that rise from 0 ");
  refused(first(1, starts[1].get<std::int64_t>() + 1), shard.string() + ": expected offsets int64 (");

  // A shard with one value of one tensor set otherwise.
  const auto changed = [&](const std::string& name, std::int64_t at, std::int64_t value, const std::string& expected) {
    const std::string before = read_file(shard);
    NamedTensors tensors;
    {
      const auto file = SafetensorsFile::open(shard);
      for (const char* each : {"offsets", "positions", "ids", "log_probs"}) tensors.emplace_back(each, file.tensor(each).clone());
    }
    for (auto& [each, tensor] : tensors) {
      if (each != name) continue;
      void* const data = tensor.mutable_data_ptr();
      name == "offsets"     ? void(static_cast<std::int64_t*>(data)[at] = value)
      : name == "positions" ? void(static_cast<std::int32_t*>(data)[at] = static_cast<std::int32_t>(value))
                            : void(static_cast<std::uint16_t*>(data)[at] = static_cast<std::uint16_t>(value));
    }
    write_safetensors(shard, tensors);
    Json checksums = good["checksums"];
    checksums[0] = crc32c_text(file_crc32c(shard));
    refused(with("checksums", checksums), shard.string() + expected);
    write_file(shard, before);
  };
  const std::int64_t vocabulary = teacher->config().vocabulary;
  changed("offsets", 0, 1, ": offsets: expected numbers that rise from 0 to the number of rows, ");
  changed("offsets", 1, -3, ": offsets: expected numbers that rise from 0 to the number of rows, ");
  changed("offsets", 1, 100000, ": offsets: expected numbers that rise from 0 to the number of rows, ");
  changed("positions", 1, -1, ": positions: found -1 in row 1, expected numbers that rise from 0 in each sample");
  changed("positions", 1, 1 << 30, ": positions: found ");
  changed("ids", 8, vocabulary, concat(": ids: found ", vocabulary, " in row 1, expected 0 to ", vocabulary - 1));
  EXPECT_EQ(open({"data"})->about().rows, good["rows"].get<std::int64_t>());
}

TEST_F(StoredLogitsTest, ABatchOfOtherDataHasNone) {
  write("data", small(6));
  EXPECT_EQ(error_of([&] { open({"data"})->rows(random_batch({5})); }),
            "train.yaml: reference_models.teacher.logits: found a sample whose logits are not stored, expected those of the data "
            "for which they were written");
}

// A training that knows its teacher by what it left on disk.
class TrainFromLogits : public StoredLogitsTest {
 protected:
  TrainFromLogits() {
    const std::unique_ptr<Model> student = teacher->share();
    convert_layers(*student, *teacher, {1}, mamba(), 1, "layers");
    export_model(*student, folder / "student", {.like = folder / "teacher"});
    write("data", small(16));
    write("other", small(16));
  }

  TrainConfig config(const std::string& run, const std::string& teacher_section = "") const {
    const auto at = [&](const char* name) { return (folder / name).string(); };
    const std::string logits = concat("{logits: [", at("data-logits"), ", ", at("other-logits"), "]}");
    return parse<TrainConfig>(
        concat("model:\n  pretrained: {path: ", at("student"), "}\n", "  base_model: {head: {distillation_model: big}}\n",
               "reference_models: {big: ", teacher_section.empty() ? logits : teacher_section, "}\n",
               "data: {packing: best_fit, blend: {a: {path: ", at("data"), "}, b: {path: ", at("other"), "}}}\n",
               "held_out: {test: {data: {path: ", at("other"), "}, tokens: 100}}\n",
               "training: {steps: 6, micro_batch_tokens: 100, checkpoint_every: 3, evaluate_every: 2}\n",
               "device: cpu\noutput: ", at(run.c_str())),
        "train.yaml");
  }
  static LoopResult train(const TrainConfig& config) {
    RunModels models = open_models(config, "train.yaml");
    EXPECT_EQ(models.teacher, nullptr);
    return run_training(config, models, {.place = "train.yaml", .versions = {}});
  }
};

TEST_F(TrainFromLogits, GoesOnBitForBit) {
  const LoopResult whole = train(config("whole"));
  EXPECT_TRUE(whole.evaluation.contains("test.forward_kl"));
  LineReader metrics(folder / "whole" / "metrics.jsonl");
  std::string_view first;
  ASSERT_TRUE(metrics.next(first));
  EXPECT_LT(whole.evaluation.at("test.forward_kl"), parse_json(first, "metrics")["evaluation"]["test.forward_kl"].get<double>());
  train(config("again"));
  fs::remove_all(folder / "again" / "checkpoints" / "00000006");
  const LoopResult again = train(config("again"));
  EXPECT_TRUE(same_weights(*load_model(whole.checkpoint / "export"), *load_model(again.checkpoint / "export")));
  EXPECT_EQ(whole.evaluation, again.evaluation);
}

TEST_F(TrainFromLogits, MistakesAreNamed) {
  const auto error = [&](const TrainConfig& wrong) { return error_of([&] { train(wrong); }); };
  const auto starts = [](const std::string& text, const std::string& begin) { EXPECT_EQ(text.substr(0, begin.size()), begin); };
  const std::string place = "train.yaml: reference_models.big.logits: ";
  EXPECT_EQ(error_of([&] { config("run", "{logits: [x], pretrained: {path: y}}"); }),
            "train.yaml: reference_models.big: logits: found beside pretrained.path or dtype, expected logits alone or a model");
  TrainConfig wrong = config("run");
  wrong.model.base_model.head.distillation_temperature = 2;
  starts(error(wrong), place + "found logits at temperature 1, expected the head's distillation_temperature, 2");
  wrong = config("run");
  wrong.reference_models["big"].logits.pop_back();
  starts(error(wrong), "train.yaml: data.blend.b.path: found data ");
  wrong = config("run");
  wrong.held_out["test"].data.path.clear();
  wrong.held_out["test"].data.synthetic.emplace();
  starts(error(wrong), "train.yaml: held_out.test.data.synthetic: found beside stored logits, expected a path");
  wrong = config("run");
  wrong.data.on_policy.emplace();
  starts(error(wrong), "train.yaml: data.on_policy: found beside stored logits, expected a teacher in memory");

  // The student's tokenizer spells one id otherwise.
  std::string words = read_file(folder / "student" / "tokenizer.json");
  const std::string word = tokenizer()->token(teacher->config().vocabulary - 1);
  words.replace(words.find("\"" + word + "\""), word.size() + 2, "\"otherwise\"");
  write_file(folder / "student" / "tokenizer.json", words);
  starts(error(config("run")), place + "found logits of a teacher with tokenizer ");
}

// In a recipe the teacher is at hand for what it alone can do, and its logits are learnt from.
TEST_F(TrainFromLogits, ARecipeLearnsFromThem) {
  const auto recipe = [&](const std::string& output, const std::string& pretrained) {
    const auto at = [&](const std::string& name) { return (folder / name).string(); };
    return parse<RecipeConfig>(
        concat("teacher: {pretrained: {path: ", at(pretrained), "}, logits: [", at("data-logits"), "]}\n", "output: ", at(output),
               "\ndevice: cpu\ndata: {path: ", at("data"), "}\n", "training: {steps: 3, micro_batch_tokens: 100}\nstages:\n",
               "  - {name: one, mamba_layers: 1, choose: {method: list, layers: [1]}, ",
               "convert: {state_size: 8, dt_rank: 4}, match: {steps: 2}, ", "head: {distillation_model: teacher}}\n"),
        "recipe.yaml");
  };
  run_recipe(recipe("recipe", "teacher"), {"recipe.yaml", {}});
  EXPECT_GT(read_json(folder / "recipe" / "recipe.json")["stages"][0]["loss"].get<double>(), 0);
  write_folder(*new_teacher(4, 9), folder / "stranger");
  const std::string error = error_of([&] { run_recipe(recipe("other", "stranger"), {"recipe.yaml", {}}); });
  EXPECT_NE(error.find("recipe.yaml: teacher.logits: found logits of another teacher than "), std::string::npos) << error;
}

}  // namespace molt::stored_logits_test
