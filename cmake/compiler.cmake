# Flags of every target. A precompiled header is rejected when OpenMP or NDEBUG differ, so they are the same everywhere.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")

find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Threads REQUIRED)

add_library(molt_flags INTERFACE)
# -fPIC in programs too: they share the precompiled header with the libraries. -fno-math-errno and -fno-trapping-math let loops with
# exp, sqrt and clamps vectorise and change no result (never -ffast-math). -Wno-psabi: vectors of lanes never cross a library boundary.
target_compile_options(molt_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-psabi -fno-math-errno -fno-trapping-math -fopenmp -fPIC>)
target_link_options(molt_flags INTERFACE -fopenmp)
if(MOLT_WERROR)
  target_compile_options(molt_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(MOLT_CPU_LEVEL)
  if(NOT MOLT_CPU_LEVEL MATCHES "^v[13]$")
    message(FATAL_ERROR "MOLT_CPU_LEVEL: found ${MOLT_CPU_LEVEL}, expected v1 or v3")
  endif()
  string(SUBSTRING ${MOLT_CPU_LEVEL} 1 1 level)
  target_compile_definitions(molt_flags INTERFACE MOLT_CPU_LEVEL=${level})
endif()
if(MOLT_SANITIZE)
  target_compile_options(molt_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${MOLT_SANITIZE} -fno-omit-frame-pointer>)
  target_link_options(molt_flags INTERFACE -fsanitize=${MOLT_SANITIZE})
endif()
target_include_directories(molt_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)

# ccache uses a precompiled header only with this sloppiness.
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
endif()
