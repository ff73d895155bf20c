#include "formats/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "base/counted.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"

namespace molt {
namespace safetensors_header {

constexpr std::uint64_t longest_header = 100'000'000;  // the reference's limit

constexpr std::pair<const char*, c10::ScalarType> dtypes[] = {
    {"F32", c10::kFloat},           {"BF16", c10::kBFloat16},    {"F16", c10::kHalf},
    {"F64", c10::kDouble},          {"I64", c10::kLong},         {"I32", c10::kInt},
    {"I16", c10::kShort},           {"I8", c10::kChar},          {"U64", c10::kUInt64},
    {"U32", c10::kUInt32},          {"U16", c10::kUInt16},       {"U8", c10::kByte},
    {"BOOL", c10::kBool},           {"C64", c10::kComplexFloat}, {"F8_E4M3", c10::kFloat8_e4m3fn},
    {"F8_E5M2", c10::kFloat8_e5m2},
};

// Receives the header token by token. The format allows three levels and no other, so that anything else is an error at once.
class Reader : public nlohmann::json_sax<Json> {
 public:
  Reader(SafetensorsHeader& header, const std::string& place) : header_(header), place_(place) {}

  bool null() override { unexpected("null"); }
  bool boolean(bool value) override { unexpected(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { unexpected(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { unexpected(text); }
  bool binary(binary_t&) override { unexpected("bytes"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (at_ == At::shape_values) {
      if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max())) unexpected(std::to_string(value));
      tensor_.shape.push_back(static_cast<std::int64_t>(value));
    } else if (at_ == At::offset_values && offsets_.size() < 2) {
      offsets_.push_back(value);
    } else {
      unexpected(std::to_string(value));
    }
    return true;
  }

  bool string(string_t& value) override {
    if (at_ == At::metadata_value) {
      header_.metadata[key_] = value;
      at_ = At::metadata;
    } else if (at_ == At::dtype) {
      const auto* found = std::find_if(std::begin(dtypes), std::end(dtypes), [&](const auto& d) { return value == d.first; });
      require(found != std::end(dtypes), here(), "found dtype \"", value, "\", expected one of ", dtype_names());
      tensor_.dtype = found->second;
      at_ = At::tensor;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (at_ == At::start) {
      at_ = At::top;
    } else if (at_ == At::top_value) {
      at_ = key_ == "__metadata__" ? At::metadata : At::tensor;
      if (at_ == At::tensor) begin_tensor();
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    if (at_ == At::top) {
      key_ = value;
      require(names_.insert(value).second, place_, ": \"", value, "\" appears twice, expected unique names");
      at_ = At::top_value;
    } else if (at_ == At::metadata) {
      key_ = value;
      at_ = At::metadata_value;
    } else {
      int field = value == "dtype" ? 0 : value == "shape" ? 1 : value == "data_offsets" ? 2 : -1;
      require(field >= 0, here(), "found \"", value, "\", expected dtype, shape and data_offsets");
      require(!seen_[field], here(), "found ", value, " twice");
      seen_[field] = true;
      constexpr At next[] = {At::dtype, At::shape, At::offsets};
      at_ = next[field];
    }
    return true;
  }

  bool end_object() override {
    if (at_ == At::tensor) {
      constexpr const char* fields[] = {"dtype", "shape", "data_offsets"};
      for (int i = 0; i < 3; ++i) require(seen_[i], here(), "found no ", fields[i]);
      header_.tensors.push_back(std::move(tensor_));
      at_ = At::top;
    } else {
      at_ = at_ == At::metadata ? At::top : At::end;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (at_ != At::shape && at_ != At::offsets) unexpected("an array");
    at_ = at_ == At::shape ? At::shape_values : At::offset_values;
    return true;
  }

  bool end_array() override {
    if (at_ == At::offset_values) {
      require(offsets_.size() == 2 && offsets_[0] <= offsets_[1], here(),
              "data_offsets: expected [begin, end] with begin <= end");
      tensor_.begin = offsets_[0];
      tensor_.end = offsets_[1];
    }
    at_ = At::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(place_, ": header is not valid JSON at byte ", position);
  }

 private:
  enum class At {
    start,
    top,
    top_value,
    metadata,
    metadata_value,
    tensor,
    dtype,
    shape,
    shape_values,
    offsets,
    offset_values,
    end
  };

  void begin_tensor() {
    tensor_ = TensorInfo{};
    tensor_.name = key_;
    offsets_.clear();
    seen_[0] = seen_[1] = seen_[2] = false;
  }

  std::string here() const { return concat(place_, ": ", key_, ": "); }

  static std::string dtype_names() {
    std::string names;
    for (const auto& [name, dtype] : dtypes) names += concat(names.empty() ? "" : ", ", name);
    return names;
  }

  [[noreturn]] void unexpected(const std::string& found) const {
    const char* expected = "";
    switch (at_) {
      case At::start:
        expected = "an object of tensors";
        break;
      case At::top:
      case At::top_value:
        expected = "an object that describes the tensor";
        break;
      case At::metadata:
      case At::metadata_value:
        expected = "a string";
        break;
      case At::tensor:
      case At::dtype:
        expected = "dtype as a string";
        break;
      case At::shape:
      case At::shape_values:
        expected = "shape as an array of whole numbers from 0 to 2^63 - 1";
        break;
      case At::offsets:
      case At::offset_values:
        expected = "data_offsets as two whole numbers";
        break;
      case At::end:
        expected = "nothing more";
        break;
    }
    fail(key_.empty() ? place_ + ": " : here(), "found ", found, ", expected ", expected);
  }

  SafetensorsHeader& header_;
  const std::string& place_;
  At at_ = At::start;
  std::string key_;
  std::unordered_set<std::string> names_;
  TensorInfo tensor_;
  std::vector<std::uint64_t> offsets_;
  bool seen_[3] = {};
};

// elements x size of an element, or nothing when it does not fit in 63 bits.
std::optional<std::uint64_t> bytes_of(const TensorInfo& tensor) {
  std::int64_t bytes = static_cast<std::int64_t>(c10::elementSize(tensor.dtype));
  if (std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end()) return 0;
  for (std::int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return {};
  }
  return static_cast<std::uint64_t>(bytes);
}

void check_layout(const std::vector<TensorInfo>& tensors, std::uint64_t data_bytes, const std::string& place) {
  std::uint64_t position = 0;
  for (const TensorInfo& tensor : tensors) {
    auto bytes = bytes_of(tensor);
    require(bytes && *bytes == tensor.bytes(), place, ": ", tensor.name, ": found ", counted(tensor.bytes(), "byte"),
            " of data, expected ", bytes ? std::to_string(*bytes) : "more than 2^63", " from its dtype and shape");
    require(tensor.begin == position, place, ": ", tensor.name, ": data begins at byte ", tensor.begin, ", expected ", position,
            ", where the tensor before it ends");
    require(tensor.end <= data_bytes, place, ": ", tensor.name, ": data ends at byte ", tensor.end, ", but the file has only ",
            counted(data_bytes, "byte"), " of data (is it truncated?)");
    position = tensor.end;
  }
  require(position == data_bytes, place, ": found ", counted(data_bytes, "byte"), " of data, expected ", position,
          " from its header");
}

}  // namespace safetensors_header

std::string safetensors_dtype(c10::ScalarType dtype) {
  for (const auto& [name, value] : safetensors_header::dtypes) {
    if (value == dtype) return name;
  }
  MOLT_CHECK(false, "no safetensors dtype for ", c10::toString(dtype));
}

SafetensorsHeader read_safetensors_header(std::string_view file, const std::string& place) {
  using safetensors_header::longest_header;
  std::uint64_t bytes = 0;
  require(file.size() >= sizeof bytes, place, ": found ", counted(std::ssize(file), "byte"),
          ", expected a safetensors file of at least 8");
  refuse_lfs_pointer(file, place);
  std::memcpy(&bytes, file.data(), sizeof bytes);
  require(bytes <= longest_header, place, ": found a header of ", bytes, " bytes, expected at most ", longest_header,
          " (is this a safetensors file?)");
  require(bytes <= file.size() - sizeof bytes, place, ": found ", counted(std::ssize(file), "byte"), ", expected a header of ",
          counted(bytes, "byte"), " (is the file truncated?)");
  SafetensorsHeader header;
  header.data_start = sizeof bytes + bytes;
  const std::string_view json = file.substr(sizeof bytes, bytes);
  safetensors_header::Reader reader(header, place);
  Json::sax_parse(json.begin(), json.end(), &reader);
  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  safetensors_header::check_layout(header.tensors, file.size() - header.data_start, place);
  return header;
}

std::string format_safetensors_header(const std::vector<TensorInfo>& tensors,
                                      const std::map<std::string, std::string>& metadata) {
  OrderedJson header = OrderedJson::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  for (const TensorInfo& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", safetensors_dtype(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string text = header.dump();
  constexpr std::size_t alignment = 64, length_bytes = sizeof(std::uint64_t);
  text.append((alignment - (length_bytes + text.size()) % alignment) % alignment, ' ');
  return text;
}

}  // namespace molt
