// Small teachers, their folders and data for the tests of this room.
#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "distill/convert.h"
#include "distill/run_training.h"
#include "model/model.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt::distill_test {

// Attention layers, hidden 32, 4 query and 2 key heads of 8. The vocabulary is that of synthetic problems.
ModelConfig teacher_config(std::int64_t layers = 4);
std::unique_ptr<Model> new_teacher(std::int64_t layers = 4, std::uint64_t seed = 5);
// Mamba with state size 8.
TargetMixerConfig mamba();
// Sequences of random tokens with random loss weights.
PackedBatch random_batch(const std::vector<int>& lengths, std::uint64_t seed = 7);
std::shared_ptr<const Tokenizer> tokenizer();
// The model and the tokenizer as a Hugging Face folder.
void write_folder(Model& model, const fs::path& folder);

double difference(const at::Tensor& a, const at::Tensor& b);
// By canonical name, sharing storage with the model's.
at::Tensor parameter(const Model& model, const std::string& name);
bool same_weights(const Model& a, const Model& b);

template <class T>
T parse(const std::string& text, const std::string& place = "test.yaml") {
  T config;
  parse_config(text, place, {}, [&](ConfigVisitor& v) { config.visit(v); });
  return config;
}

using Folder = FolderTest;

}  // namespace molt::distill_test
