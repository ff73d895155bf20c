#include "text/charsmap.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/error_of.h"

namespace molt::text::charsmap_test {

std::string base64(std::string_view bytes) {
  constexpr const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = i; j < i + 3; ++j) bits = bits << 8 | (j < bytes.size() ? static_cast<unsigned char>(bytes[j]) : 0u);
    for (int digit = 0; digit < 4; ++digit) {
      text += i + static_cast<std::size_t>(digit) > bytes.size() ? '=' : digits[bits >> (18 - 6 * digit) & 63];
    }
  }
  return text;
}

// The table in which "x" stands for the text at `value`: the root's children begin at 256, those of x at 512.
std::string table(std::uint32_t value, const std::string& texts, std::uint32_t offset = ('x' ^ 256u) ^ 512u) {
  std::vector<std::uint32_t> units(600);
  units[0] = 256u << 10;
  units[256 ^ 'x'] = offset << 10 | 1u << 8 | 'x';
  units[512] = 1u << 31 | value;
  const auto bytes = static_cast<std::uint32_t>(units.size() * sizeof units[0]);
  std::string all(sizeof bytes + bytes, '\0');
  std::memcpy(all.data(), &bytes, sizeof bytes);
  std::memcpy(all.data() + sizeof bytes, units.data(), bytes);
  return base64(all + texts);
}

std::string applied(const std::string& table, std::string text) {
  Charsmap(table, "map").apply(text);
  return text;
}

TEST(Charsmap, ReplacesGraphemeClusters) {
  const std::string map = table(3, std::string("no\0yes\0", 7));
  EXPECT_EQ(applied(map, "axbx"), "ayesbyes");
  EXPECT_EQ(applied(map, ""), "");
  // A short cluster that begins with a key becomes its text as a whole, of a long one each character.
  EXPECT_EQ(applied(map, "x\u0301b"), "yesb");
  EXPECT_EQ(applied(map, "x\u0301\u0302\u0303b"), "yes\u0301\u0302\u0303b");
}

TEST(Charsmap, RefusesWhatIsNoTable) {
  EXPECT_EQ(error_of([] { Charsmap("", "map"); }), "map: found 0 bytes, expected a table of at least 4");
  EXPECT_NE(error_of([] { Charsmap("A*==", "map"); }).find("found a byte 42, expected base64"), std::string::npos);
  for (const std::string& bytes :
       {std::string(4, '\0'), std::string("\x03\0\0\0abc", 7), std::string("\xff\xff\xff\xff", 4) + "abcd"}) {
    EXPECT_NE(error_of([&] { Charsmap(base64(bytes), "map"); }).find("expected a multiple of 4"), std::string::npos);
  }
  EXPECT_EQ(error_of([] { Charsmap(table(0, "\xff"), "map"); }), "map: found texts that are not UTF-8");
}

TEST(Charsmap, PointersToNowhereReplaceNothing) {
  EXPECT_EQ(applied(table(1'000'000, "a"), "x"), "x");
  EXPECT_EQ(applied(table(1, "é"), "x"), "x");                  // into the middle of a character
  EXPECT_EQ(applied(table(0, "a", (1u << 21) - 1), "x"), "x");  // children beyond the table
}

}  // namespace molt::text::charsmap_test
