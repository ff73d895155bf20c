// The file of a ranking while it grows, and the methods that fill it, one file each.
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
  // Of a greedy ranking: the candidates of a round, of which one is picked at its end.
  std::vector<std::int64_t> picked() const;  // in the rounds that have ended
  bool tried(std::int64_t layer) const;      // in the open round
  void add_to_round(const OrderedJson& figures);
  std::int64_t pick();  // the candidate of the highest score (of equal ones the earlier layer), which is added
  // After the last layer.
  void finish();
  Ranking ranking() const;
  const fs::path& path() const { return path_; }
  // Everything that the ranking follows from, as YAML.
  std::string identity() const;

 private:
  void write();

  fs::path path_;
  OrderedJson json_;
};

// Each adds every layer that the file lacks.
void rank_by_leaving_out(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                         RankingFile& file);
void rank_by_replacing(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                       RankingFile& file);
void rank_by_restoring(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                       RankingFile& file);
// The orders of random, uniform and list.
void rank_by_order(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                   RankingFile& file);

}  // namespace molt
