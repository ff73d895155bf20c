#include "ops/attention/cudnn_plan.h"

#include <ATen/cudnn/Handle.h>
#include <ATen/ops/empty.h>

// cuDNN is opened when it is first needed: LibTorch brings the library, and linking needs none.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW);
}

namespace molt::ops::cudnn {

namespace cudnn_graphs {

using namespace cudnn_frontend;
using TensorPointer = std::shared_ptr<graph::Tensor_attributes>;

// Numbers by which a graph knows its tensors: an operand by itself, its offsets by kOffsets + operand.
constexpr std::int64_t kOffsets = kOperands, kQueryLengths = 2 * kOperands, kKeyLengths = kQueryLengths + 1;

void check(const error_object& error) {
  if (error.is_bad()) throw std::runtime_error(error.err_msg);
}

class Builder {
 public:
  explicit Builder(const Problem& problem) : problem_(problem), graph_(std::make_unique<graph::Graph>()) {
    graph_->set_io_data_type(problem.dtype == at::kHalf ? DataType_t::HALF : DataType_t::BFLOAT16)
        .set_intermediate_data_type(DataType_t::FLOAT)
        .set_compute_data_type(DataType_t::FLOAT);
  }

  std::unique_ptr<graph::Graph> build() {
    if (problem_.pass == Pass::backward)
      backward();
    else
      forward();
    check(graph_->build(at::native::getCudnnHandle(), {HeurMode_t::A}));
    return std::move(graph_);
  }

 private:
  TensorPointer index(std::int64_t uid, std::int64_t count, DataType_t type) {
    return graph_->tensor(
        graph::Tensor_attributes().set_uid(uid).set_dim({count, 1, 1, 1}).set_stride({1, 1, 1, 1}).set_data_type(type));
  }

  // Says of a tensor where its values lie.
  void place(graph::Tensor_attributes& tensor, Operand operand) {
    const bool keys = of_keys(operand), statistic = operand == statistics;
    const std::int64_t longest = keys ? problem_.longest_key : problem_.longest_query;
    const Problem::Strides& strides = problem_.strides[operand];
    tensor.set_uid(operand)
        .set_dim({problem_.sequences, keys ? problem_.kv_heads : problem_.heads, longest, statistic ? 1 : problem_.head_size})
        .set_stride({longest * strides.token, strides.head, strides.token, 1});
    if (!problem_.dense) tensor.set_ragged_offset(index(kOffsets + operand, problem_.sequences + 1, DataType_t::INT64));
    if (!statistic) return;
    tensor.set_data_type(DataType_t::FLOAT);
    if (problem_.dense) tensor.set_stride({problem_.heads * longest, longest, 1, 1});
  }

  TensorPointer input(Operand operand) {
    graph::Tensor_attributes tensor;
    place(tensor, operand);
    return graph_->tensor(tensor);
  }

  void output(const TensorPointer& tensor, Operand operand) {
    tensor->set_output(true);
    place(*tensor, operand);
  }

  template <class Attributes>
  Attributes masked() {
    Attributes attributes;
    attributes.set_attn_scale(static_cast<float>(problem_.scale))
        .set_diagonal_alignment(problem_.queries_at_end ? DiagonalAlignment_t::BOTTOM_RIGHT : DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    if (!problem_.dense)
      attributes.set_padding_mask(true)
          .set_seq_len_q(index(kQueryLengths, problem_.sequences, DataType_t::INT32))
          .set_seq_len_kv(index(kKeyLengths, problem_.sequences, DataType_t::INT32));
    if (problem_.window > 0) attributes.set_diagonal_band_left_bound(static_cast<int>(problem_.window));
    return attributes;
  }

  void forward() {
    auto attributes = masked<graph::SDPA_attributes>();
    attributes.set_generate_stats(problem_.pass == Pass::training);
    auto [result, logsumexp] = graph_->sdpa(input(q), input(k), input(v), attributes);
    output(result, out);
    if (problem_.pass == Pass::training) output(logsumexp, statistics);
  }

  void backward() {
    auto attributes = masked<graph::SDPA_backward_attributes>();
    // Without these the workspace holds a value a (sequence, position) up to the bounds instead of one a token.
    if (!problem_.dense) attributes.set_max_total_seq_len_q(problem_.query_tokens).set_max_total_seq_len_kv(problem_.key_tokens);
    auto [dq, dk, dv] =
        graph_->sdpa_backward(input(q), input(k), input(v), input(out), input(out_gradient), input(statistics), attributes);
    output(dq, q_gradient);
    output(dk, k_gradient);
    output(dv, v_gradient);
  }

  const Problem& problem_;
  std::unique_ptr<graph::Graph> graph_;
};

class GraphPlan : public Plan {
 public:
  GraphPlan(const Problem& problem, std::unique_ptr<graph::Graph> graph) : problem_(problem), graph_(std::move(graph)) {
    check(graph_->get_workspace_size(workspace_));
  }

  void run(const std::array<void*, kOperands>& tensors, const at::Tensor& offsets, const at::Tensor& lengths) const override {
    std::unordered_map<std::int64_t, void*> pointers;
    std::int64_t row = 0;
    for (int operand = 0; operand < kOperands; ++operand) {
      if (!problem_.uses(operand)) continue;
      pointers[operand] = tensors[operand];
      if (!problem_.dense)
        pointers[kOffsets + operand] = offsets.mutable_data_ptr<std::int64_t>() + row++ * (problem_.sequences + 1);
    }
    if (!problem_.dense) {
      pointers[kQueryLengths] = lengths.mutable_data_ptr<std::int32_t>();
      pointers[kKeyLengths] = lengths.mutable_data_ptr<std::int32_t>() + problem_.sequences;
    }
    const at::Tensor workspace =
        at::empty({workspace_}, at::TensorOptions(at::Device(at::kCUDA, problem_.device)).dtype(at::kByte));
    const error_object error = graph_->execute(at::native::getCudnnHandle(), pointers, workspace.mutable_data_ptr());
    MOLT_CHECK(error.is_good(), "cuDNN: ", error.err_msg);
  }

 private:
  Problem problem_;
  std::unique_ptr<graph::Graph> graph_;
  std::int64_t workspace_ = 0;  // bytes
};

std::shared_ptr<const Plan> make(const Problem& problem) {
  if (!cudnn_dlhandle) return nullptr;
  try {
    return std::make_shared<GraphPlan>(problem, Builder(problem).build());
  } catch (const std::exception& error) {
    log_warning(concat("attention without cuDNN, at half the speed: ", error.what()));
    return nullptr;
  }
}

}  // namespace cudnn_graphs

std::shared_ptr<const Plan> plan_for(const Problem& problem) {
  static std::mutex mutex;
  static std::map<Problem, std::shared_ptr<const Plan>> plans;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [place, is_new] = plans.try_emplace(problem);
  if (is_new) place->second = cudnn_graphs::make(problem);
  return place->second;
}

}  // namespace molt::ops::cudnn
