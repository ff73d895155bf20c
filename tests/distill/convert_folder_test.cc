#include "distill/convert_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
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

TEST_F(ConvertFolder, RestoresLayersFromTheTeachersFolder) {
  write_teacher("teacher", 5, at::kBFloat16);
  write_teacher("other", 6, at::kBFloat16);
  convert_folder(conversion({0, 1, 2}));
  FolderConversion back = conversion({3});
  back.model = folder / "converted";
  back.teacher = folder / "other";
  back.restore = {2, 0};
  back.restore_place = "--restore";
  back.output = folder / "back";
  convert_folder(back);

  const auto student = load_model(folder / "converted", {.dtype = at::kBFloat16}),
             teacher = load_model(folder / "other", {.dtype = at::kBFloat16});
  restore_layers(*student, *teacher, {2, 0}, "--restore");
  convert_layers(*student, *teacher, {3}, mamba(), 3, "--layers");
  const auto written = load_model(folder / "back", {.dtype = at::kBFloat16});
  EXPECT_TRUE(same_weights(*written, *student));
  EXPECT_EQ(read_json(folder / "back/config.json")["hybrid_block_layout"], Json({"t", "m2", "t", "m2"}));
  EXPECT_NE(read_file(folder / "back/README.md").find("Layers 2, 0 of"), std::string::npos);

  // All of them restored: the teacher's own predictions, in a hybrid's form.
  back.teacher = folder / "teacher";
  back.restore = {0, 1, 2};
  back.layers.clear();
  back.output = folder / "all";
  convert_folder(back);
  EXPECT_TRUE(same_weights(*load_model(folder / "all"), *load_model(folder / "teacher")));
  back.restore = {3};
  EXPECT_EQ(error_of([&] { convert_folder(back); }), "--restore: layer 3 is attention already, expected one that was converted");
}

TEST_F(ConvertFolder, LeavesNothingWhenItIsInterrupted) {
  write_teacher("teacher", 5, at::kFloat);
  const auto interrupted = [&] {
    catch_interrupts();
    std::raise(SIGINT);
    try {
      convert_folder(conversion({1}));
    } catch (const Interrupted&) {
      _exit(fs::exists(folder / "converted") || fs::exists(folder / ".converted.partial") ? 1 : 0);
    }
    _exit(2);
  };
  EXPECT_EXIT(interrupted(), testing::ExitedWithCode(0), "");
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
