#include "base/joined_mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace molt {
namespace joined_mapping {

std::size_t page_bytes() {
  static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

std::size_t down(std::size_t position) {
  return position / page_bytes() * page_bytes();
}
std::size_t up(std::size_t position) {
  return down(position + page_bytes() - 1);
}

// Puts a range at region[position]: its pages from `first` to `last`, of which no other range has a part, are mapped.
bool place(std::byte* region, std::size_t position, std::string_view range, std::size_t first, std::size_t last) {
  const std::size_t end = position + range.size();
  if (first >= last) {
    std::memcpy(region + position, range.data(), range.size());
    return true;
  }
  // mremap of no bytes maps the pages of a shared mapping a second time (mremap(2)).
  auto* pages = const_cast<char*>(range.data()) + (static_cast<std::ptrdiff_t>(first) - static_cast<std::ptrdiff_t>(position));
  if (::mremap(pages, 0, last - first, MREMAP_MAYMOVE | MREMAP_FIXED, region + first) == MAP_FAILED) return false;
  if (first > position) std::memcpy(region + position, range.data(), first - position);
  if (last < end) std::memcpy(region + last, range.data() + (last - position), end - last);
  return true;
}

}  // namespace joined_mapping

std::shared_ptr<const JoinedMapping> JoinedMapping::of(const std::vector<std::string_view>& ranges) {
  using namespace joined_mapping;
  if (ranges.empty()) return nullptr;
  const auto place_in_page = [](const char* address) { return reinterpret_cast<std::uintptr_t>(address) % page_bytes(); };
  const std::size_t offset = place_in_page(ranges.front().data());
  std::size_t end = offset;
  for (const std::string_view range : ranges) {
    if (place_in_page(range.data()) != end % page_bytes()) return nullptr;
    end += range.size();
  }
  void* region = ::mmap(nullptr, up(end), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region == MAP_FAILED) return nullptr;
  std::shared_ptr<JoinedMapping> joined(new JoinedMapping);
  joined->region_ = static_cast<std::byte*>(region);
  joined->offset_ = offset;
  joined->size_ = end - offset;
  std::size_t position = offset;
  for (const std::string_view range : ranges) {
    const std::size_t stop = position + range.size();
    if (!place(joined->region_, position, range, position == offset ? 0 : up(position), stop == end ? up(end) : down(stop)))
      return nullptr;
    position = stop;
  }
  ::mprotect(region, up(end), PROT_READ);
  return joined;
}

JoinedMapping::~JoinedMapping() {
  ::munmap(region_, joined_mapping::up(offset_ + size_));
}

}  // namespace molt
