// A model folder whose weights stay in its files until they are asked for. A folder of adapters (peft.h) is the model that they
// make of their base: each weight with its update merged in.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "formats/hugging_face.h"
#include "formats/model_tensors.h"
#include "formats/peft.h"
#include "formats/safetensors.h"

namespace molt {

class StoredModel {
 public:
  // Reads config.json and the headers of the safetensors files, whatever the size of the weights. UserError unless every tensor
  // that the layout needs is there, in float32, bfloat16 or float16, with its shape, and no other; a tied head that is there
  // all the same must equal the embedding.
  static StoredModel open(const fs::path& folder);

  const ModelConfig& config() const { return model_->config(); }
  // Of the embedding, which stands for the whole model's.
  at::ScalarType dtype() const;
  std::int64_t bytes() const;  // of all tensors in the files

  // A parameter by its canonical name; A_log and D in fp32 whatever is asked for (but fp64). On the CPU it is the mapped file
  // itself where dtype, order and alignment suit (read-only), otherwise a copy. An update is added in fp32, before anything is
  // rounded.
  at::Tensor parameter(const std::string& name, at::Device device, at::ScalarType dtype) const;
  // All of them, as a model.
  std::unique_ptr<Model> load(at::Device device, at::ScalarType dtype) const;

 private:
  StoredModel(const fs::path& folder, std::unique_ptr<Model> model);
  void adapt(PeftAdapter adapter);
  void check(const StoredTensor& stored) const;
  void check_extras() const;
  void check_tied_head() const;
  // Null where the tensor on disk has none.
  const PeftAdapter::Update* update_of(const StoredTensor& stored) const;
  at::Tensor in_place(const StoredParameter& parameter, at::ScalarType dtype) const;

  SafetensorsFolder folder_;
  std::unique_ptr<Model> model_;  // its tensors are on the meta device
  std::map<std::string, StoredParameter> parameters_;
  std::optional<PeftAdapter> adapter_;
};

}  // namespace molt
