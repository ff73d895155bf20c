#include "model/random_model.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <map>
#include <string>
#include <utility>

#include "base/random.h"

namespace molt {

std::unique_ptr<Model> random_model(const ModelConfig& config, at::Device device, at::ScalarType dtype, std::uint64_t seed,
                                    const std::vector<const Model*>& others) {
  c10::AutoGradMode no_recording(false);
  std::map<std::pair<std::string, std::vector<std::int64_t>>, at::Tensor> known;
  for (const Model* other : others) {
    auto& giver = const_cast<Model&>(*other);  // visit() hands tensors out to be replaced; here they are only read
    giver.visit([&](const std::string& name, at::Tensor& value) { known[{name, value.sizes().vec()}] = value; });
  }
  const InitialiseOptions options{.seed = seed};
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(derive_seed(seed, "matrices"));
  auto model = std::make_unique<Model>(config);
  model->visit([&](const std::string& name, at::Tensor& value) {
    if (const auto found = known.find({name, value.sizes().vec()}); found != known.end()) {
      value = found->second;
    } else if (value.dim() == 2 && !model->keeps_fp32(name)) {
      value = at::empty(value.sizes(), at::TensorOptions(device).dtype(dtype));
      value.normal_(0, options.standard_deviation, generator);
    }
  });
  model->initialise(options, device, dtype);  // the small rest, which is not all normal
  return model;
}

}  // namespace molt
