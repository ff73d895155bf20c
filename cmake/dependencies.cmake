# Third-party libraries from the system's packages (tools/packages lists them). LibTorch is in torch.cmake.
find_package(PkgConfig REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(spdlog REQUIRED)
pkg_check_modules(YAML_CPP REQUIRED IMPORTED_TARGET yaml-cpp)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)

# Debian's spdlog does not compile once LibTorch's include folder is on the path: only rooms without tensors may use it.
add_library(molt_third_party_base INTERFACE)
target_link_libraries(molt_third_party_base INTERFACE nlohmann_json::nlohmann_json spdlog::spdlog PkgConfig::YAML_CPP)
add_library(molt::third_party_base ALIAS molt_third_party_base)

add_library(molt_third_party_text INTERFACE)
target_link_libraries(molt_third_party_text INTERFACE nlohmann_json::nlohmann_json PkgConfig::PCRE2 PkgConfig::UTF8PROC)
add_library(molt::third_party_text ALIAS molt_third_party_text)

add_library(molt_third_party_data INTERFACE)
target_link_libraries(molt_third_party_data INTERFACE PkgConfig::ZLIB PkgConfig::ZSTD)
add_library(molt::third_party_data ALIAS molt_third_party_data)
