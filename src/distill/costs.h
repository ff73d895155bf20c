// What a model costs by arithmetic, from its configuration alone: no weights are read. Plans and `molt inspect` rest on it.
#pragma once
#include <ATen/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/packed_source.h"
#include "distill/convert.h"
#include "model/model.h"
#include "train/loop.h"

namespace molt {

double parameter_count(Model& model);

// Of a training, at most: what it says, or full micro-batches of all its steps.
double training_tokens(const LoopConfig& loop);

// Tokens that a token of training sees on average: half of the sample that it is in, cut to the data's max_length and to a
// micro-batch. Lengths are those of a folder's first shard, of a blend by its weights, about 128 of a synthetic problem, and of
// a folder that is not there yet as long as they can be.
std::int64_t mean_context(const DataConfig& data, std::int64_t micro_batch_tokens);

// Parameters of one shape, with the numbers of layers as "*": "layers.*.mlp.down.weight".
struct ParameterShape {
  std::string name;
  std::vector<std::int64_t> shape;
  std::int64_t count = 0;
};
std::vector<ParameterShape> parameter_shapes(Model& model);

// A model whose weights are of one dtype (A_log and D in fp32), with `context` tokens in each sequence. Bytes and values.
struct ModelCosts {
  ModelConfig config;
  std::int64_t context = 0;
  double parameters = 0;
  std::map<std::string, double> parts;  // parameters of "embedding", "head", "norms", "mlp" and of each type of mixer
  double weight_bytes = 0;
  double read_weight_bytes = 0;  // of a step: not the embedding, of which a token takes one row
  double cache_token_bytes = 0;  // keys and values that are kept of each token
  double state_bytes = 0;        // recurrent states of a sequence
  double read_cache_bytes = 0;   // keys and values that a token of this context reads, which a sliding window bounds
  double token_flops = 0;        // of a token at this context

  double sequence_bytes() const { return static_cast<double>(context) * cache_token_bytes + state_bytes; }
};
ModelCosts model_costs(const ModelConfig& config, at::ScalarType dtype, std::int64_t context);

// A GPU. The defaults are an H100 SXM as its data sheet has it: 80 GB, 3.35 TB/s, 989 TFLOP/s in dense bfloat16.
struct Hardware {
  double memory = 80e9;        // bytes
  double bandwidth = 3.35e12;  // bytes/s
  double flops = 989e12;       // FLOP/s
};

// How many sequences fit beside the weights; activations are not counted. 0: not even one.
std::int64_t largest_batch(const ModelCosts& costs, const Hardware& hardware);

// A step that decodes one token of each of `batch` sequences takes as long as the slower of what it reads (weights once; keys,
// values and states of each sequence; the states are written, too) and what it multiplies: an upper bound, nothing else is
// counted.
struct DecodeCosts {
  std::int64_t batch = 0;
  double tokens_per_second = 0;
  std::string bound;  // what takes longest: "weights", "cache", "states" or "products"
};
DecodeCosts decode_costs(const ModelCosts& costs, const Hardware& hardware, std::int64_t batch);

// The configuration with `mamba_layers` layers of the target's type in all, those that it has among them. The last attention
// layers stand for whichever a ranking would choose: where attention layers are alike, costs do not depend on which. UserError
// when there are more already, or not enough attention layers.
ModelConfig with_mamba_layers(const ModelConfig& config, std::int64_t mamba_layers, const TargetMixerConfig& target,
                              const std::string& place);

}  // namespace molt
