// The scan and the convolution against the NumPy loops of selective_scan_oracle.py, whose results are in vectors/.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "base/error.h"
#include "devices.h"
#include "ops/causal_conv/causal_conv.h"
#include "ops/selective_scan/selective_scan.h"

namespace molt::ops {
namespace oracle_test {

using Arrays = std::map<std::string, at::Tensor>;

Arrays read_vectors(const std::string& name) {
  const std::string path = concat(MOLT_SOURCE, "/tests/ops/vectors/", name, ".txt");
  std::ifstream file(path);
  EXPECT_TRUE(file.is_open()) << path;
  Arrays arrays;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key;
    std::size_t dimensions = 0;
    words >> key >> dimensions;
    std::vector<std::int64_t> shape(dimensions);
    for (std::int64_t& size : shape) words >> size;
    std::vector<double> values;
    for (double value; words >> value;) values.push_back(value);
    arrays[key] = at::tensor(values, at::kDouble).view(shape);
  }
  return arrays;
}

Sequences sequences_of(const Arrays& arrays, at::Device device) {
  const at::Tensor lengths = arrays.at("lengths").to(at::kInt);
  return Sequences::of({lengths.data_ptr<std::int32_t>(), lengths.data_ptr<std::int32_t>() + lengths.numel()}, device);
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a.to(at::TensorOptions(at::kCPU).dtype(at::kDouble)) - b).abs().max().item<double>();
}

TEST(Oracle, Scan) {
  for (const std::string name : {"scan_grouped", "scan_x_repeated", "scan_one_group"}) {
    const Arrays arrays = read_vectors(name);
    for (const at::Device device : test_devices()) {
      for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
        SCOPED_TRACE(::testing::Message() << name << ", " << device << ", " << type);
        const auto get = [&](const char* key) { return arrays.at(key).to(at::TensorOptions(device).dtype(type)); };
        const ScanInput in{.x = get("x"),
                           .dt = get("dt"),
                           .dt_bias = get("dt_bias"),
                           .A_log = get("A_log"),
                           .B = get("B"),
                           .C = get("C"),
                           .D = get("D"),
                           .z = get("z"),
                           .initial_state = get("initial_state")};
        for (const auto scan : {selective_scan, selective_scan_composite}) {
          const ScanOutput out = scan(in, sequences_of(arrays, device), {.final_state = true, .positions = {}});
          EXPECT_LT(difference(out.y, arrays.at("y")), type == at::kFloat ? 1e-5 : 1e-12);  // 8e-6 without fused multiply-adds
          EXPECT_LT(difference(out.final_state, arrays.at("final_state")), type == at::kFloat ? 2e-6 : 1e-12);
        }
      }
    }
  }
}

TEST(Oracle, Convolution) {
  for (const std::string name : {"conv_plain", "conv_repeated"}) {
    const Arrays arrays = read_vectors(name);
    for (const at::Device device : test_devices()) {
      for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
        SCOPED_TRACE(::testing::Message() << name << ", " << device << ", " << type);
        const auto get = [&](const char* key) { return arrays.at(key).to(at::TensorOptions(device).dtype(type)); };
        const ConvInput in{.x = get("x"),
                           .weight = get("weight"),
                           .bias = get("bias"),
                           .initial_window = get("initial_window"),
                           .silu = true,
                           .repeat = arrays.at("repeat").item<std::int64_t>(),
                           .group_size = arrays.at("group_size").item<std::int64_t>()};
        for (const auto conv : {causal_conv, causal_conv_composite}) {
          EXPECT_LT(difference(conv(in, sequences_of(arrays, device)), arrays.at("y")), type == at::kFloat ? 2e-6 : 1e-12);
        }
      }
    }
  }
}

}  // namespace oracle_test
}  // namespace molt::ops
