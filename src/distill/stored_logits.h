// A teacher's next-token distributions on disk, in place of the teacher: for each learned token its k largest probabilities and
// the sum of the others, keyed by the data set and the sample's number, so that no order in which samples are read matters.
//
// A folder holds manifest.json (LogitsManifest) and shard-00000.safetensors, …, each of consecutive samples of one data set:
//   offsets    int64 (samples + 1)       where each sample's rows begin
//   positions  int32 (rows)              in the sample, ascending: a row is of the token behind this one
//   ids        uint16 or int32 (rows, k) the most probable tokens; 16 bits for a vocabulary of up to 65,536
//   log_probs  float16 (rows, k + 1)     of these, and last of all other tokens together
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "model/batch.h"
#include "ops/linear_loss/top_probabilities.h"
#include "text/tokenizer.h"

namespace molt {

struct LogitsManifest {
  std::string data;       // data_fingerprint, 16 hexadecimal digits
  std::string teacher;    // model_fingerprint
  std::string tokenizer;  // tokenizer_fingerprint of the teacher's; empty: it has none
  std::int64_t vocabulary = 0, k = 0;
  double temperature = 1;
  std::int64_t samples = 0, tokens = 0, rows = 0;  // done
  std::vector<std::int64_t> first_samples;         // of each shard
  std::vector<std::string> checksums;              // CRC-32C of each shard
  bool complete = false;

  std::int64_t id_bytes() const { return vocabulary <= 65536 ? 2 : 4; }
  // On disk: ids, log-probabilities, position.
  std::int64_t row_bytes() const { return k * (id_bytes() + 2) + 2 + 4; }
  Json to_json() const;
  // UserError if the folder has none.
  static LogitsManifest read(const fs::path& folder);
};

// Of the spelling of every id, whatever file says it.
std::string tokenizer_fingerprint(const Tokenizer& tokenizer);

// Of a folder's rows and teacher, 16 hexadecimal digits.
std::string logits_fingerprint(const fs::path& folder);

class StoredLogits {
 public:
  // Maps the folders, each of another data set and all of one teacher, k and temperature. UserError, beginning with `place`, for
  // one that is incomplete or damaged.
  StoredLogits(const std::vector<std::string>& folders, std::string place);
  ~StoredLogits();
  StoredLogits(const StoredLogits&) = delete;
  StoredLogits& operator=(const StoredLogits&) = delete;

  const LogitsManifest& about() const;  // of the first folder: what all have in common
  // UserError, beginning with `data_place`, unless the folder of token shards has its logits here.
  void require_data(const std::string& data, const std::string& data_place) const;
  // A row a token of the batch, which may lie on a GPU: ids int32, log_probs fp16, in memory of the host (pinned for a GPU). Rows
  // of tokens that are not learned are not numbers. UserError for a sequence that has no logits here.
  ops::TopProbabilities rows(const PackedBatch& batch) const;

 private:
  struct Folder;
  std::string place_;
  std::vector<Folder> folders_;
};

}  // namespace molt
