# CUDA without a GPU or a whole toolkit on the machine: nvcc, the runtime, and LibTorch's CUDA build (MOLT_TORCH).
set(CMAKE_CUDA_ARCHITECTURES 90a CACHE STRING "GPU architectures")
enable_language(CUDA)
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know C++20 for nvcc 13
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_STANDARD 20)
find_package(CUDAToolkit REQUIRED)
target_compile_definitions(molt_flags INTERFACE MOLT_CUDA=1)
target_compile_options(molt_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -lineinfo>)
# Before every other library, or the static runtime gets in.
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
target_link_libraries(molt_flags INTERFACE CUDA::cudart)

# Packed attention by cuDNN wants headers of two packages of PyPI, nvidia-cudnn-frontend and nvidia-cudnn-cu13; the library comes with
# LibTorch at run time. Both install beside torch, and tools/setup-cuda puts them there too.
find_path(MOLT_CUDNN_FRONTEND cudnn_frontend.h HINTS ${MOLT_TORCH}/../include)
find_path(MOLT_CUDNN_HEADERS cudnn.h HINTS ${MOLT_TORCH}/../include ${MOLT_TORCH}/../nvidia/cudnn/include)
if(MOLT_CUDNN_FRONTEND AND MOLT_CUDNN_HEADERS)
  set(MOLT_CUDNN ON)
  set(attention ${PROJECT_SOURCE_DIR}/src/ops/attention)  # the only ones that see them
  set_source_files_properties(${attention}/attention_cuda.cc ${attention}/cudnn_plan.cc PROPERTIES
    COMPILE_DEFINITIONS MOLT_CUDNN=1 COMPILE_OPTIONS "-isystem;${MOLT_CUDNN_FRONTEND};-isystem;${MOLT_CUDNN_HEADERS}")
else()
  message(STATUS "No headers of cuDNN and cudnn_frontend beside ${MOLT_TORCH}: attention is LibTorch's, at half the speed")
endif()
