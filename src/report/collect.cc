#include "report/collect.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "report/read_files.h"

namespace molt::report {

std::int64_t Checkpoint::mamba_layers() const {
  return std::count(layout.begin(), layout.end(), "m2");
}

namespace collecting {

template <class Figure>
std::vector<std::string> names_of(const std::vector<Checkpoint>& checkpoints,
                                  std::map<std::string, Figure> Checkpoint::* figures) {
  std::set<std::string> names;
  for (const Checkpoint& checkpoint : checkpoints) {
    for (const auto& [task, unused] : checkpoint.*figures) names.insert(task);
  }
  return {names.begin(), names.end()};
}

fs::path real_path(const fs::path& path) {
  std::error_code error;
  const fs::path found = fs::weakly_canonical(fs::absolute(path).lexically_normal(), error);
  return error ? path : found;
}

// How many of the last parts of two paths are the same.
std::int64_t common_end(const fs::path& a, const fs::path& b) {
  const std::vector<fs::path> left(a.begin(), a.end()), right(b.begin(), b.end());
  return std::mismatch(left.rbegin(), left.rend(), right.rbegin(), right.rend()).first - left.rbegin();
}

void check_folder_name(const std::string& name, const std::string& place) {
  require(!name.empty() && fs::path(name).filename() == name && name != "." && name != "..", place, ": found \"", name,
          "\", expected the name of a folder");
}

enum class Kind { recipe, training, evaluation, throughput, ranking };

bool holds_evaluations(const fs::path& folder, int depth) {
  if (fs::exists(folder / "evaluation.json")) return true;
  if (depth == 0) return false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() && holds_evaluations(entry.path(), depth - 1)) return true;
  }
  return false;
}

Kind kind_of(const fs::path& run) {
  require(fs::exists(run), run.string(), ": no such file or folder");
  if (!fs::is_directory(run)) return is_ranking(run) ? Kind::ranking : Kind::throughput;
  if (fs::exists(run / "recipe.json")) return Kind::recipe;
  if (fs::exists(run / "metrics.jsonl")) return Kind::training;
  require(holds_evaluations(run, 2), run.string(),
          ": found no recipe.json, metrics.jsonl or evaluation.json, expected the folder ",
          "of molt distill, molt train or molt evaluate");
  return Kind::evaluation;
}

class Collector {
 public:
  void add(Kind kind, const fs::path& run) {
    const fs::path folder = real_path(run);
    if (!read_.insert(folder).second) return;
    switch (kind) {
      case Kind::recipe:
        return add_recipe(run);
      case Kind::training:
        return add_training(run);
      case Kind::evaluation:
        return add_evaluations(run, 2);
      case Kind::throughput:
        return add_throughput(run);
      case Kind::ranking:
        return add_ranking(run, unique_ranking_name(valid_text(run.stem().string())), {});
    }
  }

  Collection take() {
    if (result_.reference < 0 && !result_.checkpoints.empty()) result_.reference = 0;
    return std::move(result_);
  }

 private:
  // A name that no checkpoint has yet.
  std::string unique_name(const std::string& wanted, const fs::path& folder) const {
    const auto taken = [&](const std::string& name) {
      return std::any_of(result_.checkpoints.begin(), result_.checkpoints.end(),
                         [&](const Checkpoint& checkpoint) { return checkpoint.name == name; });
    };
    if (!taken(wanted)) return wanted;
    const std::string longer = concat(valid_text(folder.filename().string()), "/", wanted);
    std::string name = longer;
    for (int i = 2; taken(name); ++i) name = concat(longer, " (", i, ")");
    return name;
  }

  // The checkpoint that `model`, a path or a name, means; null when it is none of them. A path that is not here, because results
  // came from another machine or folder, means the one whose end is the same, if that is at least two parts and no other's.
  Checkpoint* find(const std::string& model) {
    const fs::path path = real_path(model);
    for (Checkpoint& checkpoint : result_.checkpoints) {
      for (const fs::path& place : checkpoint.places) {
        if (real_path(place) == path) return &checkpoint;
      }
    }
    if (fs::exists(path)) return nullptr;
    Checkpoint* best = nullptr;
    std::int64_t longest = 1;
    for (Checkpoint& checkpoint : result_.checkpoints) {
      if (checkpoint.name == model) return &checkpoint;
      std::int64_t common = 0;
      for (const fs::path& place : checkpoint.places) {
        common = std::max(common, common_end(fs::path(model).lexically_normal(), place.lexically_normal()));
      }
      if (common < longest || common < 2) continue;
      best = common == longest ? nullptr : &checkpoint;
      longest = common;
    }
    return best;
  }

  Checkpoint& find_or_add(const std::string& model) {
    if (Checkpoint* found = find(model)) return *found;
    fs::path folder = fs::path(model).lexically_normal();
    if (!folder.has_filename()) folder = folder.parent_path();
    const bool is_export = folder.filename() == "export" && folder.has_parent_path();
    const fs::path named = is_export ? folder.parent_path() : folder;
    Checkpoint checkpoint;
    checkpoint.name = unique_name(valid_text(named.filename().string()), named.parent_path());
    checkpoint.places = {folder, is_export ? named : folder / "export"};
    for (const fs::path& place : {folder, folder / "export", newest_export(folder)}) {
      if (checkpoint.layout.empty()) checkpoint.layout = read_layout(place);
    }
    result_.checkpoints.push_back(std::move(checkpoint));
    return result_.checkpoints.back();
  }

  // Of two scores of one task that with more items counts.
  static void add_score(Checkpoint& checkpoint, const std::string& task, const Json& json, const std::string& place) {
    if (json.is_object() && json.contains("perplexity")) {
      checkpoint.perplexities[task] = read_perplexity(json, place);
      return;
    }
    const Score score = read_score(json, place);
    const auto [known, is_new] = checkpoint.scores.emplace(task, score);
    if (!is_new && score.items > known->second.items) known->second = score;
  }

  static void add_sample(Checkpoint& checkpoint, const std::string& task, const fs::path& file) {
    if (!checkpoint.sample && fs::exists(file)) checkpoint.sample = read_sample(file, task);
  }

  void add_recipe(const fs::path& folder) {
    const fs::path path = folder / "recipe.json";
    const Json json = read_json(path);
    require(json.is_object() && json.contains("teacher") && json["teacher"].is_object() && json.contains("stages") &&
                json["stages"].is_array(),
            path.string(), ": expected an object with \"teacher\" and \"stages\"");
    if (result_.title.empty()) {
      result_.title = fs::path(get_or<std::string>(json, "recipe", "", path.string())).stem().string();
    }
    std::map<std::string, std::string> names = {{"teacher", add_teacher(json["teacher"], folder, path.string() + ": teacher")}};
    std::map<std::string, double> totals;
    for (std::size_t i = 0; i < json["stages"].size(); ++i) {
      add_stage(json["stages"][i], folder, concat(path.string(), ": stages[", i, "]"), names, totals);
    }
  }

  std::string add_teacher(const Json& entry, const fs::path& folder, const std::string& place) {
    const auto path = get_or<std::string>(entry, "path", "", place);
    Checkpoint* known = path.empty() ? nullptr : find(path);
    if (!known) {
      Checkpoint checkpoint;
      checkpoint.name = unique_name("teacher", folder);
      checkpoint.places = {path.empty() ? folder / "teacher" : fs::path(path)};
      result_.checkpoints.push_back(std::move(checkpoint));
      known = &result_.checkpoints.back();
    }
    if (known->layout.empty()) known->layout = get_or<std::vector<std::string>>(entry, "layout", {}, place);
    add_scores(*known, entry, folder / "teacher", place);
    if (result_.reference < 0) result_.reference = known - result_.checkpoints.data();
    return known->name;
  }

  void add_scores(Checkpoint& checkpoint, const Json& entry, const fs::path& folder, const std::string& place) {
    if (!entry.contains("scores")) return;
    require(entry["scores"].is_object(), place, ": scores: expected an object");
    for (const auto& [task, score] : entry["scores"].items()) {
      check_folder_name(task, place + ": scores");
      add_score(checkpoint, task, score, concat(place, ": scores: ", task));
      add_sample(checkpoint, task, folder / "scores" / task / "samples.jsonl");
    }
  }

  void add_stage(const Json& entry, const fs::path& folder, const std::string& place, std::map<std::string, std::string>& names,
                 std::map<std::string, double>& totals) {
    const auto stage = get<std::string>(entry, "name", place), from = get_or<std::string>(entry, "from", "teacher", place);
    check_folder_name(stage, place + ": name");
    Checkpoint checkpoint;
    checkpoint.name = unique_name(stage, folder);
    names[stage] = checkpoint.name;
    checkpoint.from = names.contains(from) ? names[from] : from;
    checkpoint.status = get_or<std::string>(entry, "status", "finished", place);
    const fs::path home = folder / stage, exported = home / "export", run = home / "run";
    checkpoint.places = {exported, home, run};
    checkpoint.layout = get_or<std::vector<std::string>>(entry, "layout", {}, place);
    checkpoint.converted = get_or<std::vector<std::int64_t>>(entry, "converted", {}, place);

    double tokens = totals[from];
    const auto add_curve = [&](const char* part, const std::string& name) {
      if (!fs::exists(home / part / "metrics.jsonl")) return;
      result_.curves.push_back(read_curve(home / part, name, tokens));
      const Curve& curve = result_.curves.back();
      if (curve.training.empty()) return;
      tokens = curve.training.back().tokens;
      checkpoint.tokens = tokens;
      checkpoint.loss = curve.training.back().loss;
      checkpoint.objective = curve.objective;
    };
    add_curve("match", checkpoint.name + " (matching)");
    add_curve("run", checkpoint.name);
    if (entry.contains("total_tokens")) checkpoint.tokens = get<double>(entry, "total_tokens", place);
    if (entry.contains("loss") && !entry["loss"].is_null()) checkpoint.loss = get<double>(entry, "loss", place);
    totals[stage] = checkpoint.tokens.value_or(totals[from]);

    if (fs::exists(home / "ranking.json")) add_ranking(home / "ranking.json", checkpoint.name, checkpoint.converted);
    add_scores(checkpoint, entry, home, place);
    result_.checkpoints.push_back(std::move(checkpoint));
  }

  void add_training(const fs::path& run) {
    const fs::path folder = real_path(run), exported = newest_export(run);
    Checkpoint* known = find(folder.string());
    if (!known) {
      Checkpoint checkpoint;
      checkpoint.name = unique_name(valid_text(folder.filename().string()), folder.parent_path());
      checkpoint.places = {folder};
      if (!exported.empty()) checkpoint.places.push_back(exported);
      checkpoint.layout = read_layout(exported);
      result_.checkpoints.push_back(std::move(checkpoint));
      known = &result_.checkpoints.back();
    } else if (std::any_of(result_.curves.begin(), result_.curves.end(),
                           [&](const Curve& curve) { return curve.name == known->name; })) {
      return;  // a stage of a recipe that was read already
    }
    result_.curves.push_back(read_curve(run, known->name, 0));
    const Curve& curve = result_.curves.back();
    known->objective = curve.objective;
    if (curve.training.empty()) return;
    known->tokens = curve.training.back().tokens;
    known->loss = curve.training.back().loss;
  }

  void add_evaluations(const fs::path& folder, int depth) {
    if (fs::exists(folder / "evaluation.json")) return add_evaluation(folder);
    std::vector<fs::path> inside;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (depth > 0 && entry.is_directory()) inside.push_back(entry.path());
    }
    std::sort(inside.begin(), inside.end());
    for (const fs::path& each : inside) add_evaluations(each, depth - 1);
  }

  // One task of one model. An evaluation that goes on has no score yet: short answers end first, so a part of them says little.
  void add_evaluation(const fs::path& folder) {
    const fs::path identity = folder / "evaluation.json", score = folder / "score.json";
    const Json json = read_json(identity);
    const auto model = get<std::string>(json, "model", identity.string()),
               task = get<std::string>(json, "task", identity.string());
    Checkpoint& checkpoint = find_or_add(model);
    if (fs::exists(score)) add_score(checkpoint, task, read_json(score), score.string());
    add_sample(checkpoint, task, folder / "samples.jsonl");
  }

  void add_throughput(const fs::path& file) {
    ++throughput_files_;
    for (const auto& [model, row] : read_throughput(file, throughput_files_)) find_or_add(model).throughput.push_back(row);
  }

  std::string unique_ranking_name(const std::string& wanted) const {
    const auto taken = [&](const std::string& name) {
      return std::any_of(result_.rankings.begin(), result_.rankings.end(),
                         [&](const LayerRanking& ranking) { return ranking.name == name; });
    };
    std::string name = wanted;
    for (int i = 2; taken(name); ++i) name = concat(wanted, " ", i);
    return name;
  }

  void add_ranking(const fs::path& file, const std::string& name, const std::vector<std::int64_t>& chosen) {
    if (!rankings_read_.insert(real_path(file)).second) return;
    result_.rankings.push_back(read_ranking(file, name));
    result_.rankings.back().chosen = chosen;
    const fs::path student = file.parent_path() / (file.stem().string() + "_student");
    if (fs::exists(student / "metrics.jsonl")) result_.curves.push_back(read_curve(student, name + " (student)", 0));
  }

  Collection result_;
  std::set<fs::path> read_, rankings_read_;
  std::int64_t throughput_files_ = 0;
};

}  // namespace collecting

std::vector<std::string> Collection::tasks() const {
  return collecting::names_of(checkpoints, &Checkpoint::scores);
}

std::vector<std::string> Collection::texts() const {
  return collecting::names_of(checkpoints, &Checkpoint::perplexities);
}

Collection collect(const std::vector<fs::path>& runs) {
  std::vector<std::pair<collecting::Kind, fs::path>> sorted;
  for (const fs::path& run : runs) sorted.emplace_back(collecting::kind_of(run), run);
  // Recipes name the models that the others' results are joined to.
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  collecting::Collector collector;
  for (const auto& [kind, run] : sorted) collector.add(kind, run);
  Collection result = collector.take();
  if (result.title.empty()) {
    const fs::path first = collecting::real_path(runs.front());
    result.title = valid_text(first.has_filename() ? first.filename().string() : first.parent_path().filename().string());
  }
  return result;
}

}  // namespace molt::report
