#include "base/checksum.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/counted.h"
#include "base/descriptors.h"
#include "base/error.h"
#include "base/json.h"

namespace molt {

namespace checksums {

constexpr const char* list_name = "checksums.json";

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t sum = byte;
    for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ (sum & 1 ? 0x82F63B78u : 0u);
    table[byte] = sum;
  }
  return table;
}

std::uint32_t by_table(std::string_view bytes, std::uint32_t sum) {
  static constexpr std::array<std::uint32_t, 256> table = make_table();
  for (const char byte : bytes) sum = table[(sum ^ static_cast<std::uint8_t>(byte)) & 0xff] ^ (sum >> 8);
  return sum;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t by_instruction(std::string_view bytes, std::uint32_t sum) {
  std::uint64_t wide = sum;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  sum = static_cast<std::uint32_t>(wide);
  for (; i < bytes.size(); ++i) sum = __builtin_ia32_crc32qi(sum, static_cast<unsigned char>(bytes[i]));
  return sum;
}
#endif

struct Content {
  std::int64_t bytes = 0;
  std::uint32_t sum = 0;
};

// Read piece by piece: the pages of a mapped file would count as the process's memory.
Content content_of(const fs::path& path) {
  const descriptors::Descriptor file = descriptors::open_file(path, O_RDONLY | O_CLOEXEC, "read");
  std::vector<char> piece(1 << 20);
  Content content;
  for (;;) {
    const ssize_t got = ::read(file, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) descriptors::fail_system(path, "read");
    if (got == 0) return content;
    content.sum = crc32c({piece.data(), static_cast<std::size_t>(got)}, content.sum);
    content.bytes += got;
  }
}

OrderedJson entry_of(const fs::path& file) {
  const Content content = content_of(file);
  return {{"bytes", content.bytes}, {"crc32c", crc32c_text(content.sum)}};
}

}  // namespace checksums

std::uint32_t crc32c(std::string_view bytes, std::uint32_t before) {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2");
  if (has_instruction) return ~checksums::by_instruction(bytes, ~before);
#endif
  return ~checksums::by_table(bytes, ~before);
}

std::string crc32c_text(std::uint32_t sum) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", sum);
  return text;
}

std::string fingerprint_text(std::uint64_t fingerprint) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(fingerprint));
  return text;
}

std::uint32_t file_crc32c(const fs::path& path) {
  return checksums::content_of(path).sum;
}

void write_checksums(const fs::path& folder) {
  std::map<std::string, OrderedJson> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (!entry->is_regular_file()) continue;
    files[entry->path().lexically_relative(folder).generic_string()] = checksums::entry_of(entry->path());
  }
  require(!error, folder.string(), ": cannot read the folder: ", error.message());
  write_json(folder / checksums::list_name, OrderedJson(files));
}

void verify_checksums(const fs::path& folder) {
  const fs::path list = folder / checksums::list_name;
  const Json files = read_json(list);
  require(files.is_object(), list.string(), ": expected an object, a file's name for each key");
  for (const auto& [name, expected] : files.items()) {
    const fs::path path = folder / name;
    require(fs::is_regular_file(path), path.string(), ": missing, but ", list.string(), " lists it");
    const checksums::Content content = checksums::content_of(path);
    const auto bytes = get<std::int64_t>(expected, "bytes", concat(list.string(), ": ", name));
    require(content.bytes == bytes, path.string(), ": found ", counted(content.bytes, "byte"), ", expected ", bytes);
    const std::string found = crc32c_text(content.sum);
    const auto sum = get<std::string>(expected, "crc32c", concat(list.string(), ": ", name));
    require(found == sum, path.string(), ": the content is damaged: found the checksum ", found, ", expected ", sum);
  }
}

}  // namespace molt
