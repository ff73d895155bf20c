// CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected, as in RFC 3720 appendix B.4): against files that a disk or a copy
// changed.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/files.h"

namespace molt {

// Of `bytes`, after bytes whose sum was `before`.
std::uint32_t crc32c(std::string_view bytes, std::uint32_t before = 0);
// 8 hexadecimal digits.
std::string crc32c_text(std::uint32_t sum);
// 16 of a fingerprint.
std::string fingerprint_text(std::uint64_t fingerprint);
// Of a whole file.
std::uint32_t file_crc32c(const fs::path& path);

// Writes <folder>/checksums.json: {"<path below the folder>": {"bytes", "crc32c"}, …} of every file in it.
void write_checksums(const fs::path& folder);
// UserError names the first file that is missing, is of another size or has another sum than checksums.json says.
void verify_checksums(const fs::path& folder);

}  // namespace molt
