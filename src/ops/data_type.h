// What the kernels of the operations read and write. No LibTorch and no CUDA header.
#pragma once

namespace molt::ops {

enum class DataType { float32, float64, bfloat16 };  // float64 on the CPU alone, bfloat16 on the GPU alone

}  // namespace molt::ops
