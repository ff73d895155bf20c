#include "formats/safetensors.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/joined_mapping.h"

namespace molt {
namespace safetensors_file {

constexpr std::uint64_t alignment = 64;

// Fills begin and end in the order in which the tensors are to be written.
std::vector<TensorInfo> plan(std::vector<TensorInfo> tensors) {
  std::set<std::string> names;
  for (TensorInfo& tensor : tensors) {
    MOLT_CHECK(names.insert(tensor.name).second, tensor.name, " is planned twice");
    std::uint64_t bytes = c10::elementSize(tensor.dtype);
    for (std::int64_t size : tensor.shape) bytes *= static_cast<std::uint64_t>(size);
    tensor.end = bytes;
  }
  auto rest = std::stable_partition(tensors.begin(), tensors.end(), [](const TensorInfo& t) { return t.end % alignment == 0; });
  // Large elements first keep the others aligned to their elements at least; the format allows no padding between tensors.
  std::stable_sort(rest, tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return c10::elementSize(a.dtype) > c10::elementSize(b.dtype);
  });
  std::uint64_t position = 0;
  for (TensorInfo& tensor : tensors) {
    tensor.begin = position;
    position = tensor.end += position;
  }
  return tensors;
}

}  // namespace safetensors_file

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += concat(i ? ", " : "", shape[i]);
  return text + "]";
}

SafetensorsFile SafetensorsFile::open(const fs::path& path) {
  SafetensorsFile result;
  result.file_ = MappedFile::open(path);
  SafetensorsHeader header = read_safetensors_header(result.file_->text(), path.string());
  result.data_start_ = header.data_start;
  for (std::size_t i = 0; i < header.tensors.size(); ++i) result.index_[header.tensors[i].name] = i;
  result.tensors_ = std::make_shared<const std::vector<TensorInfo>>(std::move(header.tensors));
  result.metadata_ = std::move(header.metadata);
  return result;
}

const TensorInfo* SafetensorsFile::find(const std::string& name) const {
  auto found = index_.find(name);
  return found == index_.end() ? nullptr : &(*tensors_)[found->second];
}

at::Tensor SafetensorsFile::view(std::uint64_t begin, at::ScalarType dtype, const std::vector<std::int64_t>& shape) const {
  const std::byte* address = file_->data() + data_start_ + begin;
  const auto element = c10::elementSize(dtype);
  if (reinterpret_cast<std::uintptr_t>(address) % element == 0) {
    // from_blob wants a mutable address; consumers treat loaded weights as constants, and a slip faults on the read-only pages.
    return at::from_blob(const_cast<std::byte*>(address), shape, [file = file_](void*) {}, at::TensorOptions().dtype(dtype));
  }
  at::Tensor copy = at::empty(shape, at::TensorOptions().dtype(dtype));
  std::memcpy(copy.data_ptr(), address, static_cast<std::size_t>(copy.numel()) * element);
  return copy;
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const TensorInfo* info = find(name);
  require(info != nullptr, path().string(), ": found no tensor ", name);
  if (info->bytes() == 0) return at::empty(info->shape, at::TensorOptions().dtype(info->dtype));
  return view(info->begin, info->dtype, info->shape);
}

std::string_view SafetensorsFile::bytes(const TensorInfo& tensor) const {
  return file_->text().substr(data_start_ + tensor.begin, tensor.bytes());
}

at::Tensor SafetensorsFile::joined(const std::vector<std::string>& names) const {
  const TensorInfo* first = names.empty() ? nullptr : find(names[0]);
  if (!first || first->shape.empty() || first->bytes() == 0) return {};
  std::vector<std::int64_t> shape = first->shape;
  std::vector<std::string_view> parts{bytes(*first)};
  bool adjacent = true;
  for (std::size_t i = 1; i < names.size(); ++i) {
    const TensorInfo* next = find(names[i]);
    if (!next || next->dtype != first->dtype || next->shape.size() != shape.size() ||
        !std::equal(shape.begin() + 1, shape.end(), next->shape.begin() + 1)) {
      return {};
    }
    shape[0] += next->shape[0];
    parts.push_back(bytes(*next));
    adjacent = adjacent && parts[i].data() == parts[i - 1].data() + parts[i - 1].size();
  }
  if (adjacent) return view(first->begin, first->dtype, shape);
  const auto mapping = JoinedMapping::of(parts);
  if (!mapping || reinterpret_cast<std::uintptr_t>(mapping->data()) % c10::elementSize(first->dtype) != 0) return {};
  return at::from_blob(
      const_cast<std::byte*>(mapping->data()), shape, [mapping](void*) {}, at::TensorOptions().dtype(first->dtype));
}

SafetensorsWriter::SafetensorsWriter(const fs::path& path, std::vector<TensorInfo> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), order_(safetensors_file::plan(std::move(tensors))) {
  const std::string header = format_safetensors_header(order_, metadata);
  const std::uint64_t length = header.size();
  file_.write(&length, sizeof length);
  file_.write(header);
}

void SafetensorsWriter::write(const at::Tensor& tensor) {
  MOLT_CHECK(next_ < order_.size(), "every planned tensor has been written");
  const TensorInfo& planned = order_[next_++];
  MOLT_CHECK(tensor.scalar_type() == planned.dtype && tensor.sizes() == planned.shape, planned.name, ": planned ",
             c10::toString(planned.dtype), " ", shape_text(planned.shape), ", given ", c10::toString(tensor.scalar_type()), " ",
             shape_text(tensor.sizes()));
  at::Tensor data = tensor.detach().to(at::kCPU).contiguous();
  file_.write(data.const_data_ptr(), planned.bytes());
}

void SafetensorsWriter::commit() {
  MOLT_CHECK(next_ == order_.size(), "written ", next_, " of ", order_.size(), " planned tensors");
  file_.commit();
}

void write_safetensors(const fs::path& path, const NamedTensors& tensors, const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> planned;
  std::map<std::string, at::Tensor> by_name;
  for (const auto& [name, tensor] : tensors) {
    planned.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
    by_name[name] = tensor;
  }
  SafetensorsWriter writer(path, std::move(planned), metadata);
  for (const TensorInfo& tensor : writer.order()) writer.write(by_name.at(tensor.name));
  writer.commit();
}

}  // namespace molt
