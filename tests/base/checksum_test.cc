#include "base/checksum.h"

#include <gtest/gtest.h>

#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt {
namespace {

// RFC 3720, appendix B.4.
TEST(Checksum, IsTheOneOfTheStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), crc32c("123456789"));
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c_text(0xA31u), "00000a31");
}

class ChecksumFolder : public testing::Test {
 protected:
  void SetUp() override {
    write_file(folder / "a", "first");
    write_file(folder / "below/b", "second");
    write_checksums(folder);
  }
  std::string error() {
    return error_of([&] { verify_checksums(folder); });
  }
  TemporaryFolder temporary;
  const fs::path folder = temporary.path();
};

TEST_F(ChecksumFolder, IsWholeAsItWasWritten) {
  EXPECT_NO_THROW(verify_checksums(folder));
  EXPECT_EQ(file_crc32c(folder / "a"), crc32c("first"));
}

TEST_F(ChecksumFolder, NamesWhatChanged) {
  write_file(folder / "below/b", "secand");
  EXPECT_TRUE(error().starts_with((folder / "below/b").string() + ": the content is damaged")) << error();
  write_file(folder / "below/b", "seconds");
  EXPECT_EQ(error(), (folder / "below/b").string() + ": found 7 bytes, expected 6");
  fs::remove(folder / "below/b");
  EXPECT_TRUE(error().starts_with((folder / "below/b").string() + ": missing")) << error();
}

}  // namespace
}  // namespace molt
