#include "formats/safetensors.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "base/error.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt {
namespace safetensors_test {

std::string little_endian(std::uint64_t value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

class Safetensors : public ::testing::Test {
 protected:
  // Opens a file of these bytes and returns the error's message, or "" when it opens.
  std::string error_of(const std::string& bytes) {
    const fs::path path = folder_.path() / "broken.safetensors";
    std::ofstream(path, std::ios::binary) << bytes;
    try {
      SafetensorsFile::open(path);
    } catch (const UserError& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("broken.safetensors: "), std::string::npos) << error.what();
      return error.what();
    }
    return "";
  }
  std::string error_of_header(const std::string& header, std::size_t data_bytes = 8) {
    return error_of(little_endian(header.size()) + header + std::string(data_bytes, '\0'));
  }

  TemporaryFolder folder_;
};

constexpr const char* pair_of_floats = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

TEST_F(Safetensors, ReadsWhatWasWritten) {
  const fs::path path = folder_.path() / "model.safetensors";
  const NamedTensors written = {{"odd", at::arange(3, at::kByte)},
                                {"half", at::randn({5, 7}).to(at::kHalf)},
                                {"brain", at::randn({16, 4}).to(at::kBFloat16)},
                                {"strided", at::randn({4, 6}).t()},
                                {"scalar", at::scalar_tensor(2.5, at::kDouble)},
                                {"empty", at::empty({0, 4})},
                                {"flags", at::ones({2}, at::kBool)},
                                {"long", at::arange(8)}};
  write_safetensors(path, written, {{"format", "pt"}, {"note", "a \"quoted\" ☃"}});
  const SafetensorsFile file = SafetensorsFile::open(path);
  EXPECT_EQ(file.tensors().size(), written.size());
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"note", "a \"quoted\" ☃"}}));
  for (const auto& [name, tensor] : written) {
    at::Tensor read = file.tensor(name);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_EQ(read.sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(at::equal(read, tensor)) << name;
    if (file.find(name)->bytes() % 64 == 0 && read.numel() > 0) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(read.data_ptr()) % 64, 0u) << name;
    }
  }
}

TEST_F(Safetensors, TensorsShareTheMappingAndOutliveTheFile) {
  const fs::path path = folder_.path() / "model.safetensors";
  write_safetensors(path, {{"q", at::ones({4, 16})}, {"k", at::full({2, 16}, 2.0)}, {"other", at::zeros({2, 8})}});
  at::Tensor joined, q;
  {
    const SafetensorsFile file = SafetensorsFile::open(path);
    joined = file.joined({"q", "k"});
    q = file.tensor("q");
    EXPECT_FALSE(file.joined({"k", "q"}).defined());      // elsewhere in a page than where k ends
    EXPECT_FALSE(file.joined({"k", "other"}).defined());  // rows of another length
    EXPECT_FALSE(file.joined({"q", "absent"}).defined());
  }
  fs::remove(path);
  ASSERT_TRUE(joined.defined());
  EXPECT_EQ(joined.data_ptr(), q.data_ptr());
  EXPECT_TRUE(at::equal(joined, at::cat({at::ones({4, 16}), at::full({2, 16}, 2.0)})));
}

TEST_F(Safetensors, JoinsTensorsThatLieApart) {
  const fs::path path = folder_.path() / "model.safetensors";
  const at::Tensor values = at::arange(24 * 1024, at::kFloat).view({24, 1024});  // rows of 4096 bytes
  const at::Tensor k = values.slice(0, 0, 3), o = values.slice(0, 3, 12), q = values.slice(0, 12, 20),
                   v = values.slice(0, 20, 24);
  write_safetensors(path, {{"shift", at::ones({48})}, {"k", k}, {"o", o}, {"q", q}, {"v", v}});
  at::Tensor joined;
  {
    const SafetensorsFile file = SafetensorsFile::open(path);
    joined = file.joined({"q", "k", "v"});
    EXPECT_NE(reinterpret_cast<std::uintptr_t>(file.tensor("q").data_ptr()) % 4096, 0u);  // pages hold parts of two tensors
  }
  fs::remove(path);
  ASSERT_TRUE(joined.defined());
  EXPECT_TRUE(at::equal(joined, at::cat({q, k, v})));
}

TEST_F(Safetensors, CopiesWhatIsNotAlignedToItsElements) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  const float value = 1.5f;
  std::string data(5, '\0');
  std::memcpy(data.data() + 1, &value, sizeof value);
  ASSERT_EQ(error_of(little_endian(header.size()) + header + data), "");
  const SafetensorsFile file = SafetensorsFile::open(folder_.path() / "broken.safetensors");
  EXPECT_EQ(file.tensor("b").item<float>(), 1.5f);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.tensor("b").data_ptr()) % sizeof(float), 0u);
}

TEST_F(Safetensors, WriterLeavesNothingWithoutCommit) {
  const fs::path path = folder_.path() / "model.safetensors";
  {
    SafetensorsWriter writer(path, {{"a", at::kFloat, {2}}, {"b", at::kFloat, {2}}});
    writer.write(at::zeros({2}));
    EXPECT_THROW(writer.commit(), std::logic_error);
    EXPECT_THROW(writer.write(at::zeros({3})), std::logic_error);
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(Safetensors, RefusesBrokenFiles) {
  EXPECT_EQ(error_of_header(pair_of_floats), "");
  EXPECT_NE(error_of(""), "");
  EXPECT_NE(error_of("1234567"), "");
  EXPECT_NE(error_of(little_endian(std::uint64_t{1} << 60) + "{}").find("header of 1152921504606846976"), std::string::npos);
  EXPECT_NE(error_of(little_endian(~std::uint64_t{0}) + "{}"), "");
  EXPECT_NE(error_of(little_endian(90'000'000) + "{}").find("truncated"), std::string::npos);
  EXPECT_NE(error_of_header("").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of_header("{\"a\":").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of_header(std::string(pair_of_floats) + "x").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of_header(pair_of_floats, 4).find("truncated"), std::string::npos);
  EXPECT_NE(error_of_header(pair_of_floats, 12).find("found 12 bytes of data, expected 8"), std::string::npos);
  EXPECT_NE(error_of_header("{\"\xff\":1}"), "");
}

TEST_F(Safetensors, RefusesBrokenHeaders) {
  auto with = [&](const std::string& fields) { return error_of_header("{\"a\":{" + fields + "}}"); };
  EXPECT_NE(with(R"("dtype":"Q4","shape":[2],"data_offsets":[0,8])").find("\"Q4\", expected one of F32, BF16"),
            std::string::npos);
  EXPECT_NE(with(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])").find("found 8 bytes of data, expected 12"),
            std::string::npos);
  EXPECT_NE(with(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])").find("found -2"), std::string::npos);
  EXPECT_NE(with(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])").find("found 2.0"), std::string::npos);
  EXPECT_NE(with(R"("dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0])").find("more than 2^63"),
            std::string::npos);
  EXPECT_NE(with(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8])"), "");
  EXPECT_NE(with(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])").find("begin <= end"), std::string::npos);
  EXPECT_NE(with(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])"), "");
  EXPECT_NE(with(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), "");
  EXPECT_NE(with(R"("dtype":"F32","shape":[2])").find("found no data_offsets"), std::string::npos);
  EXPECT_NE(with(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])").find("dtype twice"), std::string::npos);
  EXPECT_NE(with(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"stride":[1])").find("\"stride\""), std::string::npos);
  EXPECT_NE(with(R"("dtype":"F32","shape":null,"data_offsets":[0,8])").find("found null"), std::string::npos);
  EXPECT_NE(error_of_header(R"({"a":7})").find("a: found 7"), std::string::npos);
  EXPECT_NE(error_of_header(R"([])").find("found an array"), std::string::npos);
  EXPECT_NE(error_of_header(R"({"__metadata__":{"x":1}})"), "");
}

TEST_F(Safetensors, RefusesDataThatOverlapsOrLeavesGaps) {
  auto two = [&](const char* a, const char* b, const char* second = "b") {
    return error_of_header(concat(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)", a, R"(},")", second,
                                  R"(":{"dtype":"U8","shape":[4],"data_offsets":)", b, "}}"));
  };
  EXPECT_EQ(two("[0,4]", "[4,8]"), "");
  EXPECT_EQ(two("[4,8]", "[0,4]"), "");
  EXPECT_NE(two("[0,4]", "[2,6]").find("b: data begins at byte 2, expected 4"), std::string::npos);
  EXPECT_NE(two("[0,4]", "[0,4]"), "");
  EXPECT_NE(two("[1,5]", "[5,9]").find("a: data begins at byte 1, expected 0"), std::string::npos);
  EXPECT_NE(two("[0,4]", "[6,10]").find("b: data begins at byte 6, expected 4"), std::string::npos);
  EXPECT_NE(two("[0,4]", "[4,8]", "a").find("\"a\" appears twice"), std::string::npos);
}

TEST_F(Safetensors, RefusesDeepJsonWithoutFollowingIt) {
  EXPECT_NE(error_of_header(std::string(1'000'000, '[')), "");
  std::string deep;
  for (int i = 0; i < 1'000'000; ++i) deep += "{\"a\":";
  EXPECT_NE(error_of_header(deep), "");
  EXPECT_NE(error_of_header(R"({"a":{"dtype":"F32","shape":)" + std::string(1'000'000, '[')), "");
}

class Shards : public Safetensors {
 protected:
  void SetUp() override {
    write_safetensors(folder_.path() / "one.safetensors", {{"a", at::zeros({2})}});
    write_safetensors(folder_.path() / "two.safetensors", {{"b", at::ones({2})}});
  }
  std::string error_of_index(const std::string& index) {
    write_file(folder_.path() / "model.safetensors.index.json", index);
    return molt::error_of([&] { SafetensorsFolder::open(folder_.path()); });
  }
};

TEST_F(Shards, AreFoundThroughTheIndex) {
  ASSERT_EQ(error_of_index(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})"), "");
  const SafetensorsFolder folder = SafetensorsFolder::open(folder_.path());
  EXPECT_EQ(folder.files().size(), 2u);
  ASSERT_NE(folder.holder("b"), nullptr);
  EXPECT_EQ(folder.holder("b")->tensor("b").sum().item<float>(), 2.0f);
  EXPECT_EQ(folder.holder("c"), nullptr);
}

TEST_F(Shards, RefuseAnIndexThatIsNotTheirs) {
  EXPECT_NE(error_of_index("{}").find("weight_map"), std::string::npos);
  EXPECT_NE(error_of_index(R"({"weight_map":{"a":"three.safetensors"}})").find("three.safetensors"), std::string::npos);
  EXPECT_NE(error_of_index(R"({"weight_map":{"a":"two.safetensors"}})").find("found tensor b"), std::string::npos);
  EXPECT_NE(error_of_index(R"({"weight_map":{"a":"one.safetensors","c":"one.safetensors"}})").find("no tensor c"),
            std::string::npos);
  for (const char* outside : {"../one.safetensors", "/etc/passwd", "..", "", "sub/one.safetensors", "one\\u0000.safetensors"}) {
    EXPECT_NE(error_of_index(concat(R"({"weight_map":{"a":")", outside, R"("}})")).find("in the same folder"), std::string::npos)
        << outside;
  }
  EXPECT_NE(error_of_index(R"({"weight_map":{"a":7}})").find("found 7"), std::string::npos);
}

}  // namespace safetensors_test
}  // namespace molt
