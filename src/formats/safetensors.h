// safetensors: named tensors in one file that is read by mapping it. The layout is
//   uint64 (little endian) n | n bytes of JSON: {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {…}} |
//   data
// (https://github.com/huggingface/safetensors#format). Files are checked as strictly as the reference does, and names must be
// unique. Every error is a UserError that names the file and, where there is one, the tensor.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/files.h"
#include "formats/safetensors_header.h"

namespace molt {

// "[48, 36]", for messages.
std::string shape_text(at::IntArrayRef shape);

// A mapped file. Opening reads only the header; copying is cheap, all copies share the mapping.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const fs::path& path);

  const fs::path& path() const { return file_->path(); }
  // In the order of their data.
  const std::vector<TensorInfo>& tensors() const { return *tensors_; }
  // Null when the file has no such tensor.
  const TensorInfo* find(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // A tensor on the CPU whose memory is the mapping, which lives as long as the tensor does. The pages are read-only: writing in
  // place faults. Where the file does not align the data to its elements, the tensor is a copy. UserError if there is none.
  at::Tensor tensor(const std::string& name) const;
  // The tensors `names` joined along dimension 0, mapped without a copy: as they lie one behind the other in the file, or else by
  // mapping their pages once more (base/joined_mapping.h). Undefined where neither can be done, or their dtypes or further
  // dimensions differ.
  at::Tensor joined(const std::vector<std::string>& names) const;
  // What a tensor of this file is made of, in the mapping.
  std::string_view bytes(const TensorInfo& tensor) const;

 private:
  at::Tensor view(std::uint64_t begin, at::ScalarType dtype, const std::vector<std::int64_t>& shape) const;

  std::shared_ptr<const MappedFile> file_;
  std::shared_ptr<const std::vector<TensorInfo>> tensors_;
  std::unordered_map<std::string, std::size_t> index_;
  std::map<std::string, std::string> metadata_;
  std::uint64_t data_start_ = 0;
};

// Writes a file tensor by tensor, so that none but the one being written needs to be in memory. The data starts at a multiple of
// 64 bytes, and so does every tensor whose predecessors' sizes are multiples of 64 bytes: those of other sizes are put last.
class SafetensorsWriter {
 public:
  // `tensors` are planned in this order (begin and end are computed here). Names must differ.
  SafetensorsWriter(const fs::path& path, std::vector<TensorInfo> tensors,
                    const std::map<std::string, std::string>& metadata = {});

  // The order in which write() must be called, and where each tensor lies.
  const std::vector<TensorInfo>& order() const { return order_; }
  // The next tensor of order(), on any device and with any strides; dtype and shape as planned.
  void write(const at::Tensor& tensor);
  // Makes the file durable and visible; every tensor must have been written.
  void commit();

 private:
  AtomicFile file_;
  std::vector<TensorInfo> order_;
  std::size_t next_ = 0;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
void write_safetensors(const fs::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// The tensors of a model folder: model.safetensors, or the shards named by model.safetensors.index.json. A shard must lie in the
// folder itself, and index and shards must agree on every name.
class SafetensorsFolder {
 public:
  static SafetensorsFolder open(const fs::path& folder);

  const std::vector<SafetensorsFile>& files() const { return files_; }
  // The file that holds a tensor; null when none does.
  const SafetensorsFile* holder(const std::string& name) const;
  // What lists the tensors (the file or the index): where to say that one is missing.
  const fs::path& listing() const { return listing_; }

 private:
  std::vector<SafetensorsFile> files_;
  fs::path listing_;
};

}  // namespace molt
