#include "ops/new_tensor.h"

#include <c10/core/InferenceMode.h>

#include "ops/compare.h"
#include "ops/devices.h"
#include "ops/scratch.h"

namespace molt::ops {
namespace new_tensor_test {

TEST(NewTensor, IsLikeTheOtherButForItsSizes) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong}) {
      const at::Tensor made = new_tensor({3, 0, 5}, at::zeros({2}, at::TensorOptions(device).dtype(dtype)));
      EXPECT_EQ(made.sizes(), at::IntArrayRef({3, 0, 5}));
      EXPECT_EQ(made.scalar_type(), dtype);
      EXPECT_EQ(made.device(), device);
      EXPECT_TRUE(made.is_contiguous());
      EXPECT_FALSE(made.requires_grad());
    }
}

// What is made outside of inference mode may be kept for backward.
TEST(NewTensor, IsOfInferenceWhereThatIsOn) {
  const at::Tensor like = at::zeros({1});
  EXPECT_FALSE(new_tensor({4}, like).is_inference());
  c10::InferenceMode no_gradients;
  EXPECT_TRUE(new_tensor({4}, like).is_inference());
}

TEST(Scratch, BeginsALineAndHasItsRoom) {
  for (const std::int64_t count : {0, 1, 4096, 4097, 100000}) {
    Scratch<float> scratch(count);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(scratch.get()) % 64, 0u);
    for (std::int64_t i = 0; i < count; ++i) scratch.get()[i] = static_cast<float>(i);
    for (std::int64_t i = 0; i < count; ++i) ASSERT_EQ(scratch.get()[i], static_cast<float>(i));
  }
}

}  // namespace new_tensor_test
}  // namespace molt::ops
