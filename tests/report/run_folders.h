// Small run folders as the other commands leave them, written by hand.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "base/files.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt::testing_report {

class RunFolders : public FolderTest {
 protected:
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder / name).parent_path());
    write_file(folder / name, text);
  }

  // recipe/: a teacher of four layers, stages loo-1 and mmr-2 finished, sft-2 running.
  void write_recipe() const {
    write("recipe/recipe.json", R"({
      "recipe": "recipes/tiny.yaml",
      "teacher": {"path": ")" + (folder / "teacher").string() +
                                    R"(", "layout": ["t", "t", "t", "t"], "parameters": 1000,
                  "scores": {"synthetic": {"accuracy": 0.96, "standard_error": 0.0088, "items": 500, "correct": 480}}},
      "stages": [
        {"name": "loo-1", "from": "teacher", "status": "finished", "method": "loo", "mamba_layers": 1, "converted": [2],
         "layout": ["t", "t", "m2", "t"], "ranking": "loo-1/ranking.json", "run": "loo-1/run", "export": "loo-1/export",
         "tokens": 40000, "total_tokens": 40000, "loss": 0.0625, "seconds": 9,
         "scores": {"synthetic": {"accuracy": 0.95, "standard_error": 0.0097, "items": 500, "correct": 475}}},
        {"name": "mmr-2", "from": "loo-1", "status": "finished", "method": "mmr", "mamba_layers": 2, "converted": [0],
         "layout": ["m2", "t", "m2", "t"], "tokens": 60000, "total_tokens": 100000, "loss": 0.125, "seconds": 9,
         "scores": {"synthetic": {"accuracy": 0.93, "standard_error": 0.0114, "items": 500, "correct": 465}}},
        {"name": "sft-2", "from": "mmr-2", "status": "running", "mamba_layers": 2, "layout": ["m2", "t", "m2", "t"]}]})");
    write("recipe/loo-1/ranking.json", R"({"method": "loo", "configuration": "method: loo\n", "model": "00", "teacher": "",
      "baseline": {"score": 0.0, "loss": 1.5, "standard_error": 0.1}, "complete": true,
      "layers": [{"layer": 0, "mixer": "attention", "score": 0.31, "standard_error": 0.02, "loss": 1.81},
                 {"layer": 1, "mixer": "attention", "score": 0.75, "standard_error": 0.03, "loss": 2.25},
                 {"layer": 2, "mixer": "attention", "score": -0.01, "standard_error": 0.02, "loss": 1.49}],
      "ranking": [2, 0, 1]})");
    write("recipe/loo-1/run/events.jsonl", R"({"time":"2026-01-01T00:00:00Z","event":"start","step":0,"objective":"reverse_kl"})"
                                           "\n");
    write("recipe/loo-1/run/metrics.jsonl", R"({"step":10,"tokens":20000,"loss":0.5,"tokens_per_second":100})"
                                            "\n"
                                            R"({"step":10,"evaluation":{"test.loss":0.4,"test.cross_entropy":1.2}})"
                                            "\n"
                                            R"({"step":20,"tokens":40000,"loss":0.0625,"tokens_per_second":100})"
                                            "\n");
    write("recipe/sft-2/run/events.jsonl", R"({"event":"start","objective":"cross_entropy"})"
                                           "\n");
    write("recipe/sft-2/run/metrics.jsonl", R"({"step":1,"tokens":2000,"loss":1.25})"
                                            "\n"
                                            R"({"step":2,"tokens":40)");
    write(
        "recipe/loo-1/scores/synthetic/samples.jsonl",
        R"({"id":"1","prompt":"Ann has 2 <apples> & a \"pear\".","expected":"2","completion":"She has 2.","extracted":"2","correct":true,"tokens":4})"
        "\n");
  }

  // bench.json: the teacher beside loo-1 and mmr-2, decoding at two contexts.
  void write_throughput() const {
    const auto row = [&](const std::string& model, int context, double rate, double ratio) {
      return concat(R"({"model": ")", (folder / model).string(), R"(", "work": "decode", "context": )", context,
                    R"(, "batch": 8, "tokens_per_second": )", rate, R"(, "lowest": )", rate - 10, R"(, "highest": )", rate + 10,
                    R"(, "ratio": )", ratio, R"(, "cache_bytes": 4096})");
    };
    write("bench.json",
          concat("[", row("teacher", 1024, 900, 1), ",", row("recipe/loo-1", 1024, 990, 1.1), ",", row("teacher", 8192, 400, 1),
                 ",", row("recipe/loo-1", 8192, 600, 1.48), ",", row("recipe/mmr-2/export", 8192, 800, 2.03), "]"));
  }
};

}  // namespace molt::testing_report
