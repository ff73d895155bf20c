#include "train/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cstring>

#include "base/checksum.h"
#include "base/descriptors.h"
#include "base/error.h"

namespace molt {

namespace event_file {

static_assert(std::endian::native == std::endian::little);

template <class T>
std::string bytes_of(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes += static_cast<char>(value);
}

// Protocol buffers: a field's number with its wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes), then its
// value.
std::string field(int number, int type, std::string_view value) {
  return varint(static_cast<std::uint64_t>(number) << 3 | static_cast<std::uint64_t>(type)).append(value);
}
std::string message(int number, std::string_view content) {
  return field(number, 2, varint(content.size()).append(content));
}

std::string masked_sum(std::string_view bytes) {
  const std::uint32_t sum = crc32c(bytes);
  return bytes_of(static_cast<std::uint32_t>(std::rotr(sum, 15) + 0xa282ead8u));
}

std::string frame(std::string_view data) {
  const std::string length = bytes_of(static_cast<std::uint64_t>(data.size()));
  return concat(length, masked_sum(length), data, masked_sum(data));
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// "events.out.tfevents.<seconds>.<host>.<process>.<microseconds>": TensorBoard looks for the first words and sorts by the rest.
fs::path fresh_path(const fs::path& folder) {
  char host[256] = "host";
  ::gethostname(host, sizeof host - 1);
  const double time = now();
  const auto seconds = static_cast<std::int64_t>(time);
  const auto rest = static_cast<std::int64_t>((time - static_cast<double>(seconds)) * 1e6);
  return folder / concat("events.out.tfevents.", seconds, ".", host, ".", ::getpid(), ".", rest);
}

}  // namespace event_file

TensorBoardFile::TensorBoardFile(const fs::path& folder, std::int64_t first_step) : path_(event_file::fresh_path(folder)) {
  descriptors::make_folders(folder);
  descriptor_ = descriptors::open_file(path_, O_WRONLY | O_CREAT | O_TRUNC, "write").release();
  event(0, event_file::message(3, "brain.Event:2"));  // file_version, which must come first
  event(first_step, event_file::message(7, event_file::field(1, 0, event_file::varint(1))));  // session_log { status: START }
}

TensorBoardFile::~TensorBoardFile() {
  ::close(descriptor_);
}

void TensorBoardFile::scalars(std::int64_t step, const std::map<std::string, double>& values) {
  std::string summary;
  for (const auto& [tag, value] : values) {
    summary += event_file::message(
        1, concat(event_file::message(1, tag),
                  event_file::field(2, 5, event_file::bytes_of(static_cast<float>(value)))));  // tag, simple_value
  }
  event(step, event_file::message(5, summary));
}

void TensorBoardFile::event(std::int64_t step, std::string_view what) {
  const std::string head = concat(event_file::field(1, 1, event_file::bytes_of(event_file::now())),
                                  event_file::field(2, 0, event_file::varint(static_cast<std::uint64_t>(step))));
  descriptors::write_all(descriptor_, event_file::frame(concat(head, what)), path_);
}

}  // namespace molt
