#include "formats/hugging_face.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "formats/config_json.h"
#include "formats/model_tensors.h"
#include "formats/safetensors.h"
#include "support/temporary_folder.h"

namespace molt {
namespace hugging_face_test {

// Sizes that keep some tensors off 64-byte boundaries.
constexpr const char* hybrid =
    R"({"architectures": ["AprielHybridSSMForCausalLM"], "model_type": "apriel_hybrid_ssm", "hidden_size": 36,
  "intermediate_size": 50, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 37,
  "sliding_window": 8, "hybrid_block_layout": ["t", "swa", "m2", "i"], "ssm_cfg": {"d_state": 4, "d_inner": 48, "d_xb": 24, "dt_rank": 3},
  "torch_dtype": "float32", "a_key_of_their_own": [1, {"x": null}]})";
constexpr const char* tied =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 40, "tie_word_embeddings": true})";

class HuggingFace : public ::testing::Test {
 protected:
  fs::path path(const std::string& name) const { return folder_.path() / name; }

  std::unique_ptr<Model> random_model(const char* config, at::ScalarType dtype = at::kFloat) {
    auto model = std::make_unique<Model>(parse_model_config(Json::parse(config), "config.json"));
    model->initialise({.seed = 3}, at::kCPU, dtype);
    return model;
  }

  // A folder with a random model and the given config.json.
  fs::path random_folder(const char* config, at::ScalarType dtype = at::kFloat, const std::string& name = "source") {
    fs::create_directories(path("like"));
    write_file(path("like") / "config.json", config);
    export_model(*random_model(config, dtype), path(name), {.like = path("like")});
    return path(name);
  }

  // Writes the folder's tensors again after `change`.
  void rewrite(const fs::path& folder, const std::function<void(std::map<std::string, at::Tensor>&)>& change) {
    std::map<std::string, at::Tensor> tensors;
    const SafetensorsFile file = SafetensorsFile::open(folder / "model.safetensors");
    for (const TensorInfo& tensor : file.tensors()) tensors[tensor.name] = file.tensor(tensor.name).clone();
    change(tensors);
    write_safetensors(folder / "model.safetensors", NamedTensors(tensors.begin(), tensors.end()));
  }

  // A folder as transformers writes it, the tensors in the order of their names, so that q, k and v of a layer lie apart. Its
  // weights are zeros that take no disk.
  fs::path sparse_folder(const char* config) {
    const fs::path folder = path("sparse");
    fs::create_directories(folder);
    write_file(folder / "config.json", config);
    Model model(parse_model_config(Json::parse(config), "config.json"));
    std::map<std::string, TensorInfo> by_name;
    for (const StoredParameter& parameter : stored_parameters(model)) {
      for (const StoredTensor& stored : parameter.on_disk) by_name[stored.name] = {stored.name, at::kBFloat16, stored.shape};
    }
    std::vector<TensorInfo> tensors;
    std::uint64_t position = 0;
    for (auto& [name, tensor] : by_name) {
      tensor.begin = position;
      position += 2 * static_cast<std::uint64_t>(c10::multiply_integers(tensor.shape));
      tensor.end = position;
      tensors.push_back(tensor);
    }
    const std::string header = format_safetensors_header(tensors, {});
    const std::uint64_t length = header.size();
    write_file(folder / "model.safetensors", std::string(reinterpret_cast<const char*>(&length), sizeof length) + header);
    fs::resize_file(folder / "model.safetensors", sizeof length + length + position);
    return folder;
  }

  std::string load_error(const fs::path& folder) {
    try {
      load_model(folder);
    } catch (const UserError& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      return error.what();
    }
    return "";
  }

  TemporaryFolder folder_;
};

void expect_equal(Model& a, Model& b) {
  const auto left = a.parameters(), right = b.parameters();
  ASSERT_EQ(left.size(), right.size());
  for (std::size_t i = 0; i < left.size(); ++i) {
    EXPECT_EQ(left[i].name, right[i].name);
    EXPECT_EQ(left[i].value.scalar_type(), right[i].value.scalar_type()) << left[i].name;
    EXPECT_TRUE(at::equal(left[i].value, right[i].value)) << left[i].name;
  }
}

TEST_F(HuggingFace, RoundTripKeepsEveryByte) {
  for (const char* config : {hybrid, tied}) {
    for (at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const fs::path source = random_folder(config, dtype);
      EXPECT_EQ(stored_dtype(source), dtype);
      auto model = load_model(source, {.dtype = dtype});
      expect_equal(*random_model(config, dtype), *model);
      export_model(*model, path("again"), {.like = source});
      EXPECT_EQ(read_file(path("again") / "model.safetensors"), read_file(source / "model.safetensors"));
      EXPECT_EQ(read_file(path("again") / "config.json"), read_file(source / "config.json"));
    }
  }
}

TEST_F(HuggingFace, TheCpuComputesInFp32AndCanGiveBackTheStoredDtype) {
  const fs::path source = random_folder(hybrid, at::kBFloat16);
  auto model = load_model(source);
  for (const Parameter& parameter : model->parameters()) EXPECT_EQ(parameter.value.scalar_type(), at::kFloat) << parameter.name;
  export_model(*model, path("again"), {.dtype = at::kBFloat16, .like = source});
  EXPECT_EQ(read_file(path("again") / "model.safetensors"), read_file(source / "model.safetensors"));
}

TEST_F(HuggingFace, DtBiasIsStoredHalved) {
  auto model = random_model(hybrid);
  export_model(*model, path("source"));
  const at::Tensor stored =
      SafetensorsFile::open(path("source") / "model.safetensors").tensor("model.layers.2.mixer.dt_proj.bias");
  for (const Parameter& parameter : model->parameters()) {
    if (parameter.name == "layers.2.mixers.mamba.dt_proj.bias") {
      EXPECT_TRUE(at::equal(stored * 2, parameter.value));
      return;
    }
  }
  FAIL() << "no dt bias";
}

TEST_F(HuggingFace, StatesInFewerBitsComeBackInFewerBits) {
  const fs::path source = random_folder(hybrid, at::kBFloat16);
  const std::string name = "model.layers.2.mixer.A_log";
  rewrite(source, [&](auto& tensors) { tensors[name] = tensors[name].to(at::kBFloat16); });
  auto model = load_model(source, {.dtype = at::kBFloat16});
  export_model(*model, path("again"), {.like = source});
  auto dtype = [&](const char* folder) { return SafetensorsFile::open(path(folder) / "model.safetensors").find(name)->dtype; };
  EXPECT_EQ(dtype("again"), at::kBFloat16);
  // A trained one does not fit any more and keeps its bits.
  model->visit([](const std::string& parameter, at::Tensor& value) {
    if (parameter.ends_with("A_log")) value = value + 1e-6;
  });
  export_model(*model, path("trained"), {.like = source});
  EXPECT_EQ(dtype("trained"), at::kFloat);
}

TEST_F(HuggingFace, WeightsStayInTheMappedFile) {
  // A multiple of 16 in every size: each section ends where the next may begin.
  const fs::path source = random_folder(tied);
  auto model = load_model(source);
  for (const Parameter& parameter : model->parameters()) {
    EXPECT_EQ(parameter.value.storage().allocator(), nullptr) << parameter.name << " was copied";
  }
  // Other dtypes are converted into memory of their own.
  for (const Parameter& parameter : load_model(source, {.dtype = at::kBFloat16})->parameters()) {
    EXPECT_NE(parameter.value.storage().allocator(), nullptr) << parameter.name;
  }
}

// Bytes of this process that no file stands behind.
std::int64_t anonymous_bytes() {
  const std::string status = read_file("/proc/self/status"), key = "RssAnon:";
  return 1024 * std::stoll(status.substr(status.find(key) + key.size()));
}

TEST_F(HuggingFace, AFolderOf30GBIsLoadedWithinASecondAndNotCopied) {
  const fs::path source = sparse_folder(
      R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 5120, "intermediate_size": 14336,
          "num_hidden_layers": 50, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
          "sliding_window": null})");
  ASSERT_GT(fs::file_size(source / "model.safetensors"), 29'900'000'000u);
  double seconds = 1e9;
  for (int i = 0; i < 3; ++i) {
    const std::int64_t before = anonymous_bytes();
    const auto start = std::chrono::steady_clock::now();
    const auto model = load_model(source, {.dtype = at::kBFloat16});
    seconds = std::min(seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    EXPECT_LT(anonymous_bytes() - before, 16 << 20);
    for (const Parameter& parameter : model->parameters()) {
      EXPECT_EQ(parameter.value.storage().allocator(), nullptr) << parameter.name << " was copied";
    }
  }
  EXPECT_LT(seconds, 1);
}

TEST_F(HuggingFace, ShardsKeepTheSectionsOfAParameterTogether) {
  auto model = random_model(hybrid);
  export_model(*model, path("sharded"), {.max_shard_bytes = 20'000});
  EXPECT_FALSE(fs::exists(path("sharded") / "model.safetensors"));
  const Json index = read_json(path("sharded") / "model.safetensors.index.json");
  const Json& map = index["weight_map"];
  EXPECT_EQ(map["model.embed_tokens.weight"], "model-00001-of-00012.safetensors");
  EXPECT_EQ(map["model.layers.0.self_attn.q_proj.weight"], map["model.layers.0.self_attn.v_proj.weight"]);
  expect_equal(*model, *load_model(path("sharded")));
}

// A model whose tensors are elsewhere is written parameter by parameter, each asked for once.
TEST_F(HuggingFace, AModelOnTheMetaDeviceIsWrittenFromItsSource) {
  const auto model = random_model(hybrid, at::kBFloat16);
  export_model(*model, path("whole"));
  Model empty(model->config());
  empty.to(at::kCPU, at::kBFloat16);
  std::map<std::string, int> asked;
  std::int64_t announced = 0;
  export_model(empty, path("streamed"),
               {.source =
                    [&](const std::string& name) {
                      ++asked[name];
                      for (const Parameter& parameter : model->parameters()) {
                        if (parameter.name == name) return parameter.value;
                      }
                      return at::Tensor();
                    },
                .before_writing = [&](std::int64_t bytes, std::int64_t) { announced = bytes; }});
  EXPECT_EQ(read_file(path("streamed") / "model.safetensors"), read_file(path("whole") / "model.safetensors"));
  EXPECT_EQ(asked.size(), model->parameters().size());
  std::int64_t bytes = 0;
  for (const Parameter& parameter : model->parameters()) bytes += static_cast<std::int64_t>(parameter.value.nbytes());
  EXPECT_EQ(announced, bytes);
}

TEST_F(HuggingFace, CarriesTheSourcesFilesOver) {
  fs::create_directories(path("teacher"));
  write_file(path("teacher") / "tokenizer.json", R"({"added_tokens": [{"id": 5, "content": "</s>"}]})");
  write_file(path("teacher") / "tokenizer_config.json", R"({"eos_token": {"content": "</s>"}, "bos_token": null})");
  write_file(path("teacher") / "chat_template.jinja", "{{ messages }}");
  fs::create_directories(path("teacher") / "additional_chat_templates");
  write_file(path("teacher") / "additional_chat_templates/tool_use.jinja", "{{ tools }}");
  write_file(path("teacher") / "LICENSE", "Ours, with notice");
  write_file(path("teacher") / "optimizer.bin", "not theirs to have");
  export_model(*random_model(hybrid), path("out"),
               {.like = path("teacher"), .metadata = {{"stage", "H-30"}}, .model_card = "# Card\n"});
  EXPECT_EQ(read_file(path("out") / "chat_template.jinja"), "{{ messages }}");
  EXPECT_EQ(read_file(path("out") / "additional_chat_templates/tool_use.jinja"), "{{ tools }}");
  EXPECT_EQ(read_file(path("out") / "tokenizer.json"), read_file(path("teacher") / "tokenizer.json"));
  EXPECT_EQ(read_file(path("out") / "LICENSE"), "Ours, with notice");
  EXPECT_EQ(read_file(path("out") / "README.md"), "# Card\n");
  EXPECT_FALSE(fs::exists(path("out") / "optimizer.bin"));
  const Json written = read_json(path("out") / "config.json");
  EXPECT_EQ(written["eos_token_id"], 5);
  for (const auto& [kind, reference] : written["auto_map"].items()) {
    const std::string file = reference.get<std::string>();
    EXPECT_TRUE(fs::exists(path("out") / (file.substr(0, file.find('.')) + ".py"))) << kind;
  }
  const auto metadata = SafetensorsFile::open(path("out") / "model.safetensors").metadata();
  EXPECT_EQ(metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"stage", "H-30"}}));
}

TEST_F(HuggingFace, RefusesTensorsThatDoNotFit) {
  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  auto broken = [&](const std::function<void(std::map<std::string, at::Tensor>&)>& change) {
    const fs::path source = random_folder(hybrid);
    rewrite(source, change);
    return load_error(source);
  };
  EXPECT_EQ(broken([](auto&) {}), "");
  EXPECT_NE(broken([&](auto& t) { t.erase(q); }).find("model.safetensors: found no tensor " + q), std::string::npos);
  EXPECT_NE(
      broken([&](auto& t) { t["model.layers.0.self_attn.q_proj.bias"] = at::zeros({48}); }).find("q_proj.bias, which a model"),
      std::string::npos);
  EXPECT_NE(broken([&](auto& t) { t[q] = at::zeros({24, 36}); }).find(q + ": found shape [24, 36], expected [48, 36]"),
            std::string::npos);
  EXPECT_NE(broken([&](auto& t) { t[q] = t[q].to(at::kLong); }).find("found dtype I64, expected F32, BF16 or F16"),
            std::string::npos);
  EXPECT_NE(broken([&](auto& t) { t["model.layers.3.mlp.up_proj.weight"] = at::zeros({2}); }).find("model.layers.3.mlp"),
            std::string::npos);
  // Buffers of older versions are no parameters.
  EXPECT_EQ(broken([&](auto& t) { t["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({6}); }), "");
}

TEST_F(HuggingFace, TiedHeadsAreOneTensor) {
  const fs::path source = random_folder(tied);
  EXPECT_EQ(SafetensorsFile::open(source / "model.safetensors").find("lm_head.weight"), nullptr);
  rewrite(source, [](auto& t) { t["lm_head.weight"] = t["model.embed_tokens.weight"]; });
  EXPECT_EQ(load_error(source), "");
  rewrite(source, [](auto& t) { t["lm_head.weight"] = t["model.embed_tokens.weight"] + 1; });
  EXPECT_NE(load_error(source).find("lm_head.weight: found other values than in model.embed_tokens.weight"), std::string::npos);
}

TEST_F(HuggingFace, NamesTheFileThatIsMissing) {
  const fs::path source = random_folder(tied);
  fs::remove(source / "model.safetensors");
  const auto finds = [&](const char* what) {
    return load_error(source).find(concat("found ", what, ", expected model.safetensors or"));
  };
  EXPECT_NE(finds("no weights"), std::string::npos);
  write_file(source / "pytorch_model.bin", "");
  EXPECT_NE(finds("pytorch_model.bin"), std::string::npos);
  write_file(source / "model-00001-of-00002.safetensors", "");
  EXPECT_NE(finds("model-00001-of-00002.safetensors"), std::string::npos);
  fs::remove(source / "config.json");
  EXPECT_NE(load_error(source).find("config.json"), std::string::npos);
}

TEST_F(HuggingFace, RefusesHostileConfigsInOneLine) {
  const fs::path source = random_folder(tied);
  const std::string good = read_file(source / "config.json");
  const auto error = [&](const std::string& text) {
    write_file(source / "config.json", text);
    const std::string found = load_error(source);
    EXPECT_NE(found.find("config.json"), std::string::npos) << found.substr(0, 200);
    EXPECT_LT(found.size(), 400u);
    return found;
  };
  const auto with = [&](const std::string& key, const std::string& value) {
    Json config = Json::parse(good);
    config[key] = "VALUE";
    std::string text = config.dump();
    return text.replace(text.find("\"VALUE\""), 7, value);
  };
  EXPECT_NE(error(std::string(1'000'000, '[')).find("nested deeper than 256"), std::string::npos);
  EXPECT_NE(error(with("rope_scaling", std::string(1'000'000, '{'))).find("nested deeper than 256"), std::string::npos);
  EXPECT_NE(error(with("rms_norm_eps", "NaN")).find("config.json:1:"), std::string::npos);
  EXPECT_NE(error(with("rope_theta", "1e999")), "");
  EXPECT_NE(error(with("rope_theta", "-Infinity")), "");
  EXPECT_NE(error(with("hidden_size", "-1")).find("hidden_size: found -1"), std::string::npos);
  EXPECT_NE(error(with("hidden_size", "16777216")).find("found shape"), std::string::npos);
  EXPECT_NE(error(with("vocab_size", "1.5")).find("vocab_size: found 1.5"), std::string::npos);
  EXPECT_NE(error(with("num_hidden_layers", "1152921504606846976")).find("num_hidden_layers: found 1152921504606846976"),
            std::string::npos);
  EXPECT_NE(error(good.substr(0, good.size() / 2)), "");
  EXPECT_NE(error("{\"model_type\": \"\xff\"}"), "");
  EXPECT_NE(error(""), "");
}

TEST_F(HuggingFace, AFailedExportLeavesNothing) {
  ModelConfig config = random_model(hybrid)->config();
  config.blocks[0].mlp.intermediate_size = 64;  // the others have 50
  Model model(config);
  model.initialise({}, at::kCPU, at::kFloat);
  EXPECT_THROW(export_model(model, path("out")), UserError);
  EXPECT_FALSE(fs::exists(path("out")));
  auto large = random_model(tied);
  large->final_norm = at::full({32}, 1e6);
  EXPECT_THROW(export_model(*large, path("out"), {.dtype = at::kHalf}), UserError);
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(HuggingFace, ResolvesCheckpointsAndRuns) {
  for (const char* name : {"run/checkpoints/step-9/export", "run/checkpoints/step-0010/export"}) {
    fs::create_directories(path(name));
    write_file(path(name) / "config.json", "{}");
  }
  fs::create_directories(path("run/checkpoints/step-11"));  // not exported
  EXPECT_EQ(resolve_model_folder(path("run")), path("run/checkpoints/step-0010/export"));
  EXPECT_EQ(resolve_model_folder(path("run/checkpoints/step-9")), path("run/checkpoints/step-9/export"));
  EXPECT_EQ(resolve_model_folder(path("run/checkpoints/step-9/export")), path("run/checkpoints/step-9/export"));
  EXPECT_THROW(resolve_model_folder(path("run/checkpoints")), UserError);
  EXPECT_THROW(resolve_model_folder(path("absent")), UserError);
}

}  // namespace hugging_face_test
}  // namespace molt
