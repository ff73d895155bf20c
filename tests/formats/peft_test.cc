#include "formats/peft.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "formats/config_json.h"
#include "formats/hugging_face.h"
#include "formats/safetensors.h"
#include "formats/stored_model.h"
#include "model/initialise.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt {
namespace peft_test {

constexpr const char* hybrid =
    R"({"architectures": ["AprielHybridSSMForCausalLM"], "model_type": "apriel_hybrid_ssm", "hidden_size": 36,
  "intermediate_size": 50, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 37,
  "sliding_window": null, "hybrid_block_layout": ["t", "m2", "t"], "ssm_cfg": {"d_state": 4, "d_inner": 48, "d_xb": 24, "dt_rank": 3},
  "torch_dtype": "float32"})";

class Peft : public ::testing::Test {
 protected:
  Peft() {
    Model model(parse_model_config(Json::parse(hybrid), "config.json"));
    model.initialise({.seed = 3}, at::kCPU, at::kFloat);
    export_model(model, base);
  }

  // The base with random adapters where `chosen` says, of rank 2, and of 5 on the layers after the first.
  std::unique_ptr<Model> adapted(const std::function<bool(const std::string&)>& chosen) {
    std::unique_ptr<Model> model = load_model(base);
    std::uint64_t seed = 1;
    for (const Projection& projection : projections(*model)) {
      if (!chosen(projection.module)) continue;
      const std::int64_t rank = projection.module.starts_with("model.layers.0.") ? 2 : 5;
      projection.linear->adapters.push_back({projection.section, random_normal({rank, projection.linear->in()}, 0.3, seed++),
                                             random_normal({projection.rows, rank}, 0.03, seed++), 1.5});
    }
    return model;
  }

  // Every fault is named in one line.
  void expect_refused(const std::function<void(Json&)>& change, const std::string& message) {
    const fs::path path = adapter / "adapter_config.json";
    const std::string before = read_file(path);
    Json config = read_json(path);
    change(config);
    write_json(path, config);
    EXPECT_EQ(error_of([&] { load_model(adapter); }), path.string() + ": " + message);
    write_file(path, before);
  }

  TemporaryFolder folder_;
  fs::path base = folder_.path() / "base", adapter = folder_.path() / "adapter";
};

bool every(const std::string&) {
  return true;
}

TEST_F(Peft, ReadsBackWhatItWrote) {
  const std::unique_ptr<Model> model = adapted(every);
  export_adapters(*model, adapter, base);
  ASSERT_TRUE(is_adapter_folder(adapter));
  EXPECT_EQ(base_folder(adapter), base);
  const std::unique_ptr<Model> again = load_model(base);
  attach_adapters(*again, PeftAdapter::open(adapter));
  const std::vector<Parameter> written = model->parameters(), read = again->parameters();
  ASSERT_EQ(written.size(), read.size());
  for (std::size_t i = 0; i < written.size(); ++i) {
    EXPECT_EQ(written[i].name, read[i].name);
    EXPECT_TRUE(at::equal(written[i].value, read[i].value)) << written[i].name;
  }
  const auto scales = [](Model& of) {
    std::vector<double> result;
    for (const Projection& projection : projections(of)) {
      for (const Linear::Adapter& each : projection.linear->adapters) result.push_back(each.scale);
    }
    return result;
  };
  EXPECT_EQ(scales(*model), scales(*again));
}

TEST_F(Peft, AFolderOfAdaptersIsTheMergedModel) {
  const std::unique_ptr<Model> model = adapted([](const std::string& module) { return !module.ends_with("k_proj"); });
  export_adapters(*model, adapter, base);
  EXPECT_EQ(resolve_model_folder(adapter), adapter);
  const std::unique_ptr<Model> merged = load_model(adapter);
  const PackedBatch batch = PackedBatch::of({{{1, 5, 9, 30, 2, 17}, {}}, {{4, 4}, {}}});
  EXPECT_LT((merged->forward(batch) - model->forward(batch)).abs().max().item<double>(), 1e-5);
  EXPECT_GT((merged->forward(batch) - load_model(base)->forward(batch)).abs().max().item<double>(), 0.01);

  export_model(*merged, folder_.path() / "whole", {.like = adapter});
  const auto whole = load_model(folder_.path() / "whole");
  const std::vector<Parameter> left = merged->parameters(), right = whole->parameters();
  for (std::size_t i = 0; i < left.size(); ++i) EXPECT_TRUE(at::equal(left[i].value, right[i].value)) << left[i].name;
}

TEST_F(Peft, TargetsAreShortWhereEveryProjectionOfANameIsAdapted) {
  export_adapters(*adapted([](const std::string& module) {
    return module.ends_with(".down_proj") || module == "model.layers.2.self_attn.q_proj";
  }),
                  adapter, base);
  const Json config = read_json(adapter / "adapter_config.json");
  EXPECT_EQ(config["target_modules"], (Json{"down_proj", "model.layers.2.self_attn.q_proj"}));
  EXPECT_EQ(config["r"], 2);
  EXPECT_EQ(config["lora_alpha"], 3);
  EXPECT_EQ(config["rank_pattern"]["model.layers.1.mlp.down_proj"], 5);
  EXPECT_EQ(config["alpha_pattern"]["model.layers.1.mlp.down_proj"], 7.5);
}

TEST_F(Peft, RefusesWhatItWouldComputeOtherwise) {
  export_adapters(*adapted(every), adapter, base);
  expect_refused([](Json& config) { config["peft_type"] = "IA3"; }, "peft_type: found \"IA3\", expected \"LORA\"");
  expect_refused([](Json& config) { config["use_dora"] = true; }, "use_dora: found true, expected false");
  expect_refused([](Json& config) { config["bias"] = "all"; }, "bias: found \"all\", expected \"none\"");
  expect_refused([](Json& config) { config["modules_to_save"] = {"lm_head"}; },
                 "modules_to_save: found [\"lm_head\"], expected null");
  expect_refused([](Json& config) { config["alpha_pattern"] = {{".*q_proj", 4}}; },
                 "alpha_pattern: found the expression \".*q_proj\", expected names of modules");
  expect_refused(
      [](Json& config) { config["base_model_name_or_path"] = "someone/model-7B"; },
      "base_model_name_or_path: found \"someone/model-7B\", which is no folder here; expected that of the adapter's model");
}

TEST_F(Peft, RefusesTensorsThatDoNotFit) {
  const auto write = [&](const std::string& module, at::IntArrayRef A, at::IntArrayRef B) {
    write_safetensors(adapter / "adapter_model.safetensors", {{"base_model.model." + module + ".lora_A.weight", at::ones(A)},
                                                              {"base_model.model." + module + ".lora_B.weight", at::ones(B)}});
    return error_of([&] { StoredModel::open(adapter); });
  };
  export_adapters(*adapted(every), adapter, base);
  const std::string q = "model.layers.0.self_attn.q_proj";
  EXPECT_EQ(write(q, {2, 36}, {48, 2}), "");
  EXPECT_EQ(write(q, {2, 36}, {40, 2}),
            concat(adapter.string(), ": ", q, ": found lora_A [2, 36] and lora_B [40, 2], expected 36 ", "columns and 48 rows"));
  EXPECT_EQ(write(q, {2, 36}, {48, 3}), concat((adapter / "adapter_model.safetensors").string(), ": ", q,
                                               ": found lora_A [2, 36] and lora_B [48, 3], expected one rank"));
  EXPECT_EQ(write("model.layers.1.self_attn.q_proj", {2, 36}, {48, 2}),
            concat(adapter.string(),
                   ": found an adapter of model.layers.1.self_attn.q_proj, which is no projection of this model's ", "layers"));
}

}  // namespace peft_test
}  // namespace molt
