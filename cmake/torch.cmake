# Imports LibTorch from the torch Python package, CPU or CUDA build, as the target `torch`.
if(NOT MOLT_TORCH)
  find_program(MOLT_PYTHON NAMES python3 HINTS ${PROJECT_SOURCE_DIR}/.venv/bin NO_CACHE)
  execute_process(
    COMMAND ${MOLT_PYTHON} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE MOLT_TORCH_FOUND OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(MOLT_TORCH "${MOLT_TORCH_FOUND}" CACHE PATH "Folder of the torch package" FORCE)
endif()
if(NOT EXISTS "${MOLT_TORCH}/include/torch/headeronly/version.h")
  message(FATAL_ERROR "No LibTorch in '${MOLT_TORCH}': run `make setup`, or pass -DMOLT_TORCH=<folder of the torch package>")
endif()
file(STRINGS "${MOLT_TORCH}/include/torch/headeronly/version.h" version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" MOLT_TORCH_VERSION "${version_lines}")
if(MOLT_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "LibTorch ${MOLT_TORCH_VERSION} in ${MOLT_TORCH}: 2.11 or newer is needed")
endif()
message(STATUS "LibTorch ${MOLT_TORCH_VERSION}: ${MOLT_TORCH}")

add_library(torch INTERFACE)
target_include_directories(torch SYSTEM INTERFACE ${MOLT_TORCH}/include ${MOLT_TORCH}/include/torch/csrc/api/include)
target_link_libraries(torch INTERFACE ${MOLT_TORCH}/lib/libtorch_cpu.so ${MOLT_TORCH}/lib/libc10.so)
if(EXISTS ${MOLT_TORCH}/lib/libtorch_cuda.so AND MOLT_CUDA)
  target_link_libraries(torch INTERFACE ${MOLT_TORCH}/lib/libc10_cuda.so)
  target_link_options(torch INTERFACE -Wl,--allow-shlib-undefined -Wl,--push-state,--no-as-needed
                      ${MOLT_TORCH}/lib/libtorch_cuda.so -Wl,--pop-state)
endif()
