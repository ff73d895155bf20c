#include "data/parquet_rows.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"

namespace molt {

namespace parquet_rows {

constexpr std::int64_t kBatchRows = 2048;

void require_ok(const arrow::Status& status, const fs::path& path) {
  std::string reason = status.message();
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  require(status.ok(), path.string(), ": cannot read the Parquet data: ", reason);
}

template <class T>
T value_of(arrow::Result<T> result, const fs::path& path) {
  require_ok(result.status(), path);
  return std::move(result).ValueUnsafe();
}

void append_value(std::string& out, const arrow::Array& array, std::int64_t row);

template <class Array>
bool append_number(std::string& out, const arrow::Array& array, std::int64_t row) {
  char digits[32];
  const auto value = static_cast<const Array&>(array).Value(row);
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  return true;
}

template <class Array>
bool append_text(std::string& out, const arrow::Array& array, std::int64_t row) {
  out += to_line(Json(static_cast<const Array&>(array).GetView(row)));
  return true;
}

template <class Array>
bool append_list(std::string& out, const arrow::Array& array, std::int64_t row) {
  const auto& list = static_cast<const Array&>(array);
  const std::int64_t begin = list.value_offset(row), end = begin + list.value_length(row);
  out += '[';
  for (std::int64_t i = begin; i < end; ++i) {
    if (i > begin) out += ", ";
    append_value(out, *list.values(), i);
  }
  out += ']';
  return true;
}

// An object of the values that are not null.
bool append_object(std::string& out, const std::vector<std::string>& names, const arrow::ArrayVector& columns, std::int64_t row) {
  bool first = true;
  out += '{';
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (columns[i]->IsNull(row)) continue;
    if (!first) out += ", ";
    first = false;
    out += to_line(Json(names[i])) + ": ";
    append_value(out, *columns[i], row);
  }
  out += '}';
  return true;
}

bool append_struct(std::string& out, const arrow::Array& array, std::int64_t row) {
  const auto& object = static_cast<const arrow::StructArray&>(array);
  std::vector<std::string> names;
  for (const auto& field : object.struct_type()->fields()) names.push_back(field->name());
  return append_object(out, names, object.fields(), row);
}

// False for a type that JSON has no form for here.
bool append_of_type(std::string& out, const arrow::Array& array, std::int64_t row) {
  using Type = arrow::Type;
  switch (array.type_id()) {
    case Type::STRING:
      return append_text<arrow::StringArray>(out, array, row);
    case Type::LARGE_STRING:
      return append_text<arrow::LargeStringArray>(out, array, row);
    case Type::STRING_VIEW:
      return append_text<arrow::StringViewArray>(out, array, row);
    case Type::BOOL:
      out += static_cast<const arrow::BooleanArray&>(array).Value(row) ? "true" : "false";
      return true;
    case Type::INT8:
      return append_number<arrow::Int8Array>(out, array, row);
    case Type::UINT8:
      return append_number<arrow::UInt8Array>(out, array, row);
    case Type::INT16:
      return append_number<arrow::Int16Array>(out, array, row);
    case Type::UINT16:
      return append_number<arrow::UInt16Array>(out, array, row);
    case Type::INT32:
      return append_number<arrow::Int32Array>(out, array, row);
    case Type::UINT32:
      return append_number<arrow::UInt32Array>(out, array, row);
    case Type::INT64:
      return append_number<arrow::Int64Array>(out, array, row);
    case Type::UINT64:
      return append_number<arrow::UInt64Array>(out, array, row);
    case Type::FLOAT:
      return append_number<arrow::FloatArray>(out, array, row);
    case Type::DOUBLE:
      return append_number<arrow::DoubleArray>(out, array, row);
    case Type::LIST:
      return append_list<arrow::ListArray>(out, array, row);
    case Type::LARGE_LIST:
      return append_list<arrow::LargeListArray>(out, array, row);
    case Type::FIXED_SIZE_LIST:
      return append_list<arrow::FixedSizeListArray>(out, array, row);
    case Type::STRUCT:
      return append_struct(out, array, row);
    case Type::DICTIONARY: {
      const auto& words = static_cast<const arrow::DictionaryArray&>(array);
      append_value(out, *words.dictionary(), words.GetValueIndex(row));
      return true;
    }
    default:
      return false;
  }
}

void append_value(std::string& out, const arrow::Array& array, std::int64_t row) {
  if (array.IsNull(row)) {
    out += "null";
    return;
  }
  require(append_of_type(out, array, row), "found ", array.type()->ToString(),
          ", expected text, numbers, true or false, lists or structs");
}

class Rows : public Records {
 public:
  Rows(const fs::path& path, const std::vector<std::string>& keys) : path_(path) {
    std::error_code error;
    bytes_ = static_cast<std::int64_t>(fs::file_size(path, error));
    parquet::arrow::FileReaderBuilder builder;
    auto file = value_of(arrow::io::MemoryMappedFile::Open(path.string(), arrow::io::FileMode::READ), path);
    require_ok(builder.Open(std::move(file)), path);
    parquet::ArrowReaderProperties properties;
    properties.set_batch_size(kBatchRows);
    properties.set_pre_buffer(false);  // the file is mapped
    builder.properties(properties);
    require_ok(builder.Build(&file_), path);
    total_ = std::max<std::int64_t>(file_->parquet_reader()->metadata()->num_rows(), 1);
    open_columns(keys);
  }

  std::vector<Record> next(std::size_t most) override {
    while (at_ == (batch_ ? batch_->num_rows() : 0)) {
      require_ok(read_batch(), path_);
      if (!batch_) return {};
    }
    const std::int64_t end = std::min<std::int64_t>(batch_->num_rows(), at_ + static_cast<std::int64_t>(most));
    std::vector<std::size_t> ends;
    texts_.clear();
    for (const std::int64_t begin = at_; at_ < end; ++at_, ends.push_back(texts_.size())) append_row(at_ - begin);
    std::vector<Record> records;
    std::size_t begin = 0;
    for (const std::size_t text_end : ends) {
      records.push_back({++number_, std::string_view(texts_).substr(begin, text_end - begin)});
      begin = text_end;
    }
    return records;
  }
  std::int64_t number() const override { return number_; }
  std::int64_t position() const override {
    return static_cast<std::int64_t>(static_cast<double>(bytes_) * static_cast<double>(number_) / static_cast<double>(total_));
  }

 private:
  void open_columns(const std::vector<std::string>& keys) {
    const auto* schema = file_->parquet_reader()->metadata()->schema();
    std::vector<int> columns, groups;
    std::string found;
    for (int i = 0; i < schema->num_columns(); ++i) {
      const std::string name = schema->Column(i)->path()->ToDotVector().front();
      if (std::find(keys.begin(), keys.end(), name) != keys.end()) columns.push_back(i);
      if (!found.ends_with(name)) found += (found.empty() ? "" : ", ") + name;
    }
    std::string wanted;
    for (const std::string& key : keys) wanted += (wanted.empty() ? "" : ", ") + key;
    require(!columns.empty(), path_.string(), ": found the columns ", found, ", expected one of ", wanted);
    for (int i = 0; i < file_->num_row_groups(); ++i) groups.push_back(i);
    reader_ = value_of(file_->GetRecordBatchReader(groups, columns), path_);
    names_ = reader_->schema()->field_names();
  }

  // Arrow's own errors come as a status, those of a page's bytes as exceptions.
  arrow::Status read_batch() {
    at_ = 0;
    BEGIN_PARQUET_CATCH_EXCEPTIONS
    return reader_->ReadNext(&batch_);
    END_PARQUET_CATCH_EXCEPTIONS
  }

  void append_row(std::int64_t after) {
    try {
      append_object(texts_, names_, batch_->columns(), at_);
    } catch (const UserError& error) {
      fail(path_.string(), ":", number_ + after + 1, ": ", error.what());
    }
  }

  fs::path path_;
  std::int64_t bytes_ = 0, total_ = 1;
  std::unique_ptr<parquet::arrow::FileReader> file_;
  std::shared_ptr<arrow::RecordBatchReader> reader_;
  std::vector<std::string> names_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  std::int64_t at_ = 0;      // the next row of batch_
  std::int64_t number_ = 0;  // rows given
  std::string texts_;        // of the records given last
};

}  // namespace parquet_rows

std::unique_ptr<Records> open_parquet(const fs::path& path, const std::vector<std::string>& keys) {
  return std::make_unique<parquet_rows::Rows>(path, keys);
}

}  // namespace molt
