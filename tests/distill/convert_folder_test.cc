#include "distill/convert_folder.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "distill/support.h"
#include "formats/safetensors.h"
#include "model/mixers/mamba/mamba.h"

namespace molt::convert_folder_test {

using namespace distill_test;

class ConvertFolder : public distill_test::Folder {
 protected:
  FolderConversion conversion(std::vector<std::int64_t> layers) {
    FolderConversion result;
    result.model = folder / "teacher";
    result.layers = std::move(layers);
    result.target = mamba();
    result.seed = 3;
    result.place = "--layers";
    result.output = folder / "converted";
    return result;
  }

  void write_teacher(const std::string& name, std::uint64_t seed, at::ScalarType dtype) {
    const auto model = new_teacher(4, seed);
    model->to(at::kCPU, dtype);
    write_folder(*model, folder / name);
  }
};

TEST_F(ConvertFolder, WritesTheBytesThatTheWholeModelWouldHave) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    write_teacher("teacher", 5, dtype);
    write_teacher("other", 6, dtype);
    FolderConversion options = conversion({1, 2});
    options.teacher = folder / "other";
    convert_folder(options);

    const auto student = load_model(folder / "teacher", {.dtype = dtype}),
               teacher = load_model(folder / "other", {.dtype = dtype});
    convert_layers(*student, *teacher, {1, 2}, mamba(), 3, "--layers");
    export_model(*student, folder / "expected", {.like = folder / "teacher"});
    for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
      EXPECT_EQ(read_file(folder / "converted" / name), read_file(folder / "expected" / name)) << name;
    }

    // And again from there: the first new mixers are copied.
    FolderConversion next = conversion({0});
    next.model = folder / "converted";
    next.teacher = folder / "other";
    next.output = folder / "further";
    next.options.max_shard_bytes = 10'000;
    convert_folder(next);
    const auto further = load_model(folder / "further", {.dtype = dtype});
    convert_layers(*student, *teacher, {0}, mamba(), 3, "--layers");
    EXPECT_TRUE(same_weights(*further, *student));
    EXPECT_TRUE(fs::exists(folder / "further" / "model.safetensors.index.json"));
  }
}

TEST_F(ConvertFolder, SaysWhatIsWrongBeforeItWrites) {
  write_teacher("teacher", 5, at::kFloat);
  EXPECT_EQ(error_of([&] { convert_folder(conversion({1, 4})); }), "--layers: found layer 4, expected 0 to 3");
  FolderConversion wide = conversion({1});
  dynamic_cast<MambaConfig&>(*wide.target.settings).d_inner = 64;
  EXPECT_NE(error_of([&] { convert_folder(wide); }).find("--layers: layer 1: mixer mamba: d_inner: found 64, expected 32"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "converted"));
}

}  // namespace molt::convert_folder_test
