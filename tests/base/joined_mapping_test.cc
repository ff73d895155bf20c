#include "base/joined_mapping.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/files.h"
#include "support/temporary_folder.h"

namespace molt::joined_mapping_test {

const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

// Bytes that tell where they are.
std::string pattern(std::size_t bytes, unsigned seed) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>((i * 2654435761u + seed) >> 7);
  return text;
}

TEST(JoinedMapping, IsItsRangesOneBehindTheOther) {
  const TemporaryFolder folder;
  write_file(folder.path() / "a", pattern(9 * page, 1));
  write_file(folder.path() / "b", pattern(9 * page, 2));
  const auto a = MappedFile::open(folder.path() / "a"), b = MappedFile::open(folder.path() / "b");
  using Range = std::pair<std::size_t, std::size_t>;  // first byte, bytes
  // Whole pages; a page that two ranges share; ranges within a page, over a border, and without bytes.
  const std::vector<std::vector<Range>> cases = {{{0, page}, {4 * page, 2 * page}},
                                                 {{100, 3 * page}, {5 * page + 100, page}, {page + 100, 2 * page + 7}},
                                                 {{100, 50}, {2 * page + 150, 60}, {4 * page + 210, page}},
                                                 {{page - 10, 30}, {3 * page + 20, 0}, {5 * page + 20, 3 * page}},
                                                 {{7, 2 * page + 1}}};
  for (const auto& ranges : cases) {
    std::vector<std::string_view> parts;
    std::string expected;
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      parts.push_back((i % 2 ? b : a)->text().substr(ranges[i].first, ranges[i].second));
      expected += parts.back();
    }
    const auto joined = JoinedMapping::of(parts);
    ASSERT_TRUE(joined);
    EXPECT_TRUE(std::string_view(reinterpret_cast<const char*>(joined->data()), joined->size()) == expected);
  }
  EXPECT_FALSE(JoinedMapping::of({a->text().substr(0, page), a->text().substr(page + 8, page)}));
  EXPECT_FALSE(JoinedMapping::of({}));
}

TEST(JoinedMapping, OutlivesTheFiles) {
  const TemporaryFolder folder;
  write_file(folder.path() / "a", pattern(6 * page, 3));
  std::shared_ptr<const JoinedMapping> joined;
  {
    const auto a = MappedFile::open(folder.path() / "a");
    joined = JoinedMapping::of({a->text().substr(3 * page, 2 * page), a->text().substr(0, page)});
  }
  fs::remove(folder.path() / "a");
  ASSERT_TRUE(joined);
  const std::string all = pattern(6 * page, 3);
  EXPECT_TRUE(std::string_view(reinterpret_cast<const char*>(joined->data()), joined->size()) ==
              all.substr(3 * page, 2 * page) + all.substr(0, page));
}

}  // namespace molt::joined_mapping_test
