#include "train/random_state.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>

#include <mutex>

namespace molt {

namespace random_state {

// Calls action(name, generator) with each of them, locked.
template <class Action>
void for_each_generator(at::Device device, Action action) {
  std::vector<at::Device> devices = {at::Device(at::kCPU)};
  if (!device.is_cpu()) devices.push_back(device);
  for (const at::Device each : devices) {
    at::Generator generator = at::globalContext().defaultGenerator(each);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    action("random." + c10::DeviceTypeName(each.type(), /*lower_case=*/true), generator);
  }
}

}  // namespace random_state

void seed_generators(at::Device device, std::uint64_t seed) {
  random_state::for_each_generator(device,
                                   [&](const std::string&, at::Generator& generator) { generator.set_current_seed(seed); });
}

std::vector<Parameter> generator_states(at::Device device) {
  std::vector<Parameter> states;
  random_state::for_each_generator(
      device, [&](const std::string& name, at::Generator& generator) { states.push_back({name, generator.get_state()}); });
  return states;
}

void restore_generators(at::Device device, const std::vector<Parameter>& tensors) {
  random_state::for_each_generator(device, [&](const std::string& name, at::Generator& generator) {
    for (const Parameter& tensor : tensors) {
      if (tensor.name == name) generator.set_state(tensor.value.clone());
    }
  });
}

}  // namespace molt
