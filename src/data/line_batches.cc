#include "data/line_batches.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>

#include "base/error.h"

namespace molt {

namespace inflating {

constexpr std::size_t kPiece = 256 << 10;

class Gzip : public Inflater {
 public:
  explicit Gzip(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {
    MOLT_CHECK(inflateInit2(&stream_, 15 + 16) == Z_OK, "zlib cannot start");  // 15: the largest window; 16: gzip
  }
  ~Gzip() override { inflateEnd(&stream_); }

  bool more(std::string& out) override {
    const std::size_t before = out.size();
    while (out.size() - before < kPiece && !(ended_ && taken_ == file_->size())) {
      if (ended_) MOLT_CHECK(inflateReset(&stream_) == Z_OK, "zlib cannot go on");  // the next member
      ended_ = false;
      step(out);
    }
    return out.size() > before;
  }
  std::size_t taken() const override { return taken_; }

 private:
  void step(std::string& out) {
    const std::size_t begin = out.size(), room = kPiece;
    out.resize(begin + room);
    const std::size_t given = std::min<std::size_t>(file_->size() - taken_, 1 << 30);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(file_->data() + taken_));
    stream_.avail_in = static_cast<uInt>(given);
    stream_.next_out = reinterpret_cast<Bytef*>(out.data() + begin);
    stream_.avail_out = static_cast<uInt>(room);
    const int code = inflate(&stream_, Z_NO_FLUSH);
    taken_ += given - stream_.avail_in;
    out.resize(begin + room - stream_.avail_out);
    require(code != Z_BUF_ERROR || stream_.avail_out == 0, file_->path().string(), ": the gzip data ends too early");
    require(code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR, file_->path().string(), ": broken gzip data at byte ",
            taken_, ": ", stream_.msg ? stream_.msg : "unknown");
    ended_ = code == Z_STREAM_END;
  }

  std::shared_ptr<const MappedFile> file_;
  z_stream stream_ = {};
  std::size_t taken_ = 0;
  bool ended_ = false;  // a member
};

class Zstandard : public Inflater {
 public:
  explicit Zstandard(std::shared_ptr<const MappedFile> file) : file_(std::move(file)), stream_(ZSTD_createDStream()) {
    MOLT_CHECK(stream_ != nullptr, "zstd cannot start");
    input_ = {file_->data(), file_->size(), 0};
  }
  ~Zstandard() override { ZSTD_freeDStream(stream_); }

  bool more(std::string& out) override {
    const std::size_t before = out.size();
    while (out.size() - before < kPiece && !(wanted_ == 0 && input_.pos == input_.size)) {
      const std::size_t begin = out.size(), at = input_.pos;
      out.resize(begin + kPiece);
      ZSTD_outBuffer output = {out.data() + begin, kPiece, 0};
      wanted_ = ZSTD_decompressStream(stream_, &output, &input_);
      out.resize(begin + output.pos);
      require(!ZSTD_isError(wanted_), file_->path().string(), ": broken zstd data at byte ", at, ": ",
              ZSTD_getErrorName(wanted_));
      require(wanted_ == 0 || output.pos > 0 || input_.pos > at, file_->path().string(), ": the zstd data ends too early");
    }
    return out.size() > before;
  }
  std::size_t taken() const override { return input_.pos; }

 private:
  std::shared_ptr<const MappedFile> file_;
  ZSTD_DStream* stream_;
  ZSTD_inBuffer input_ = {};
  std::size_t wanted_ = 1;  // 0: a frame has ended
};

}  // namespace inflating

std::unique_ptr<Inflater> make_inflater(std::shared_ptr<const MappedFile> file) {
  const std::string_view text = file->text();
  if (text.starts_with("\x1f\x8b")) return std::make_unique<inflating::Gzip>(std::move(file));
  if (text.starts_with("\x28\xb5\x2f\xfd")) return std::make_unique<inflating::Zstandard>(std::move(file));
  return nullptr;
}

LineBatches::LineBatches(const fs::path& path)
    : file_(MappedFile::open(path, Access::sequential)), inflater_(make_inflater(file_)) {
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (inflater_)
    refill();
  else
    rest_ = file_->text();
  if (rest_.starts_with(byte_order_mark)) rest_.remove_prefix(byte_order_mark.size());
}

std::int64_t LineBatches::position() const {
  return static_cast<std::int64_t>(inflater_ ? inflater_->taken() : file_->size() - rest_.size());
}

// Moves what is left to the front of the buffer and adds to it; views into it are void. False when nothing was added.
bool LineBatches::refill() {
  if (!inflater_) return false;
  const std::size_t used = rest_.empty() ? buffer_.size() : static_cast<std::size_t>(rest_.data() - buffer_.data());
  buffer_.erase(0, used);
  const bool added = inflater_->more(buffer_);
  rest_ = buffer_;
  return added;
}

std::vector<Records::Record> LineBatches::next(std::size_t most) {
  std::vector<Record> lines;
  while (lines.size() < most) {
    std::size_t newline = rest_.find('\n');
    // Only before the first line may the buffer move.
    while (lines.empty() && newline == std::string_view::npos && refill()) newline = rest_.find('\n');
    const bool whole = newline != std::string_view::npos;
    if (rest_.empty() || (!whole && inflater_ && !lines.empty())) break;
    std::string_view line = rest_.substr(0, newline);
    rest_.remove_prefix(whole ? newline + 1 : rest_.size());
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back({++number_, line});
  }
  return lines;
}

}  // namespace molt
