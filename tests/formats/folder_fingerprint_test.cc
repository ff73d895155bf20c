#include "formats/folder_fingerprint.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "formats/config_json.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "model/initialise.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt {
namespace folder_fingerprint_test {

constexpr const char* two_layers =
    R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128, "torch_dtype": "float32"})";

class FolderFingerprint : public FolderTest {
 protected:
  FolderFingerprint() {
    model.initialise({.seed = 3}, at::kCPU, at::kFloat);
    export_model(model, folder / "model");
    before = folder_fingerprint(folder / "model");
  }

  Model model{parse_model_config(Json::parse(two_layers), "config.json")};
  std::string before;
};

TEST_F(FolderFingerprint, StaysWithTheWeightsWhereverTheyLie) {
  EXPECT_EQ(before.size(), 16u);
  fs::copy(folder / "model", folder / "copy");
  EXPECT_EQ(folder_fingerprint(folder / "copy"), before);
  export_model(model, folder / "shards", {.max_shard_bytes = 20000});
  ASSERT_TRUE(fs::exists(folder / "shards/model.safetensors.index.json"));
  EXPECT_EQ(folder_fingerprint(folder / "shards"), before);
}

TEST_F(FolderFingerprint, ChangesWithEveryTensorAndWithTheConfiguration) {
  for (const Parameter& parameter : model.parameters()) {
    parameter.value.mul_(1.001);
    export_model(model, folder / "model");
    const std::string now = folder_fingerprint(folder / "model");
    EXPECT_NE(now, before) << parameter.name;
    before = now;
  }
  Json config = read_json(folder / "model/config.json");
  config["rope_theta"] = 12345.0;
  write_json(folder / "model/config.json", config);
  EXPECT_NE(folder_fingerprint(folder / "model"), before);
}

TEST_F(FolderFingerprint, OfAdaptersIsAlsoOfTheirBase) {
  const std::unique_ptr<Model> adapted = load_model(folder / "model");
  const auto export_with = [&](std::uint64_t seed) {
    Linear& first = *projections(*adapted).front().linear;
    first.adapters = {{projections(*adapted).front().section, random_normal({2, first.in()}, 0.3, seed),
                       random_normal({projections(*adapted).front().rows, 2}, 0.03, seed + 1), 1.5}};
    export_adapters(*adapted, folder / "adapter", folder / "model");
    return folder_fingerprint(folder / "adapter");
  };
  const std::string first = export_with(1);
  EXPECT_NE(first, before);
  EXPECT_NE(export_with(5), first);
  EXPECT_EQ(export_with(1), first);
  model.parameters().front().value.add_(1);
  export_model(model, folder / "model");
  EXPECT_NE(folder_fingerprint(folder / "adapter"), first);
}

TEST_F(FolderFingerprint, OfNoModelIsAnError) {
  fs::create_directories(folder / "empty");
  EXPECT_NE(error_of([&] { folder_fingerprint(folder / "empty"); }).find("empty/config.json"), std::string::npos);
}

}  // namespace folder_fingerprint_test
}  // namespace molt
