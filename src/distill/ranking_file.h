// The file of a ranking while it grows, and the two methods that fill it.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "distill/rank.h"

namespace molt {

class RankingFile {
 public:
  // Continues what `path` holds. UserError when that is of another configuration, model or teacher.
  RankingFile(fs::path path, const RankConfig& config, const std::string& model, const std::string& teacher);

  bool complete() const { return json_["complete"].get<bool>(); }
  bool has(std::int64_t layer) const;
  bool has_baseline() const { return json_.contains("baseline"); }
  void set_baseline(const OrderedJson& figures);
  // A layer's figures, "layer", "score" and "standard_error" among them; the file is written.
  void add(const OrderedJson& figures);
  // After the last layer.
  void finish();
  Ranking ranking() const;
  const fs::path& path() const { return path_; }

 private:
  void write();

  fs::path path_;
  OrderedJson json_;
};

// Both add every layer that the file lacks.
void rank_by_leaving_out(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                         RankingFile& file);
void rank_by_replacing(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                       RankingFile& file);

}  // namespace molt
