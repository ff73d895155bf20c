#include "infer/throughput.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/random.h"
#include "infer/engine.h"
#include "infer/step_runner.h"
#ifdef MOLT_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>
#endif

namespace molt {
namespace throughput_detail {

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// One model with the caches of one setting.
class Subject {
 public:
  Subject(const Model& model, std::int64_t batch, std::int64_t room, const ThroughputOptions& options)
      : options_(options), pool_(model, batch, room), runner_(model, pool_), last_(static_cast<std::size_t>(batch)) {
    for (std::int64_t i = 0; i < batch; ++i) leases_.push_back(*pool_.acquire());
    Random random(derive_seed(options.seed, "tokens"));
    for (std::int64_t i = 0; i < room; ++i) tokens_.push_back(static_cast<std::int32_t>(random.below(model.config().vocabulary)));
    pool_.fill_random(options.seed);
  }

  // Every sequence has `context` tokens, and gets `count` more, one a step.
  void decode(std::int64_t context, std::int64_t count) {
    for (std::size_t i = 0; i < last_.size(); ++i) last_[i] = tokens_[i % tokens_.size()];
    std::vector<SampledItem> before, items;
    for (std::int64_t step = 0; step < count; ++step) {
      const bool follows = runner_.overlaps() && step > 0;
      items.clear();
      for (std::size_t i = 0; i < last_.size(); ++i) {
        const auto place = follows ? static_cast<std::int32_t>(i) : -1;
        SampledItem item{{std::span(&last_[i], 1), place, context + step, &leases_[i]}};
        item.sampling = &greedy_;
        items.push_back(item);
      }
      runner_.start(items);
      if (follows) runner_.finish(before);
      if (!runner_.overlaps()) runner_.finish(items);
      for (std::size_t i = 0; i < last_.size(); ++i) last_[i] = items[i].token;
      std::swap(before, items);
    }
    if (runner_.overlaps()) runner_.finish(before);
  }

  // One sequence reads a prompt of `count` tokens.
  void prefill(std::int64_t count) {
    for (std::int64_t begin = 0; begin < count; begin += options_.prefill_tokens) {
      const std::int64_t end = std::min(count, begin + options_.prefill_tokens);
      SampledItem item{{std::span(tokens_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)), -1,
                        begin, &leases_.front()}};
      if (end == count) item.sampling = &greedy_;
      runner_.run(std::span(&item, 1));
    }
  }

 private:
  const ThroughputOptions& options_;
  CachePool pool_;
  StepRunner runner_;
  SamplingOptions greedy_;
  std::vector<CachePool::Lease> leases_;
  std::vector<std::int32_t> tokens_, last_;
};

void check(const ThroughputOptions& options, at::Device device) {
  const auto at_least_one = [](const char* name, std::int64_t value) {
    require(value >= 1, name, ": found ", value, ", expected at least 1");
  };
  for (const std::int64_t batch : options.batches) {
    if (batch != ThroughputOptions::kLargest) at_least_one("batch", batch);
    require(batch != ThroughputOptions::kLargest || device.is_cuda(),
            "batch: found the largest that fits, expected a number: only a GPU has memory of its own");
  }
  for (const std::int64_t context : options.contexts) at_least_one("context", context);
  at_least_one("tokens", options.tokens);
  at_least_one("runs", options.runs);
  at_least_one("prefill_tokens", options.prefill_tokens);
}

// Bytes that new tensors can have on a GPU.
std::int64_t free_bytes(at::Device device) {
#ifdef MOLT_CUDA
  if (device.is_cuda()) {
    c10::cuda::CUDACachingAllocator::emptyCache();
    std::size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) == cudaSuccess) return static_cast<std::int64_t>(free);
  }
#endif
  MOLT_CHECK(false, "no GPU: ", device.str());
}

// As many sequences of `room` tokens as fit beside the weights.
std::int64_t largest_batch(const Model& model, std::int64_t room) {
  // For activations of a step, workspaces of libraries, and graphs; and a sequence's own logits and activations.
  constexpr std::int64_t kept = std::int64_t{3} << 30;
  const std::int64_t sequence = cache_bytes(model, CachePool::block_for(room)) + 8 * model.config().vocabulary;
  return (free_bytes(model.device()) - kept) / sequence;
}

// Answers `count` requests of one token with `tokens` each, in caches that have room for the options' number.
void answer(const Model& model, std::int64_t count, std::int64_t tokens, const ThroughputOptions& options) {
  Engine engine(model, {.max_sequences = count, .max_tokens = options.tokens + 1});
  Random random(derive_seed(options.seed, "tokens"));
  for (std::int64_t i = 0; i < count; ++i) {
    engine.submit({.prompt = {static_cast<std::int32_t>(random.below(model.config().vocabulary))}, .max_tokens = tokens});
  }
  while (!engine.idle()) throw_if_interrupted(), engine.step();
}

using Work = ThroughputRow::Work;

constexpr std::int64_t warm_up = 4;  // steps of one new token: all are alike

// The models' runs of one kind of work.
class Setting {
 public:
  Setting(const std::vector<const Model*>& models, const ThroughputOptions& options, std::function<void()> ran)
      : models_(models), options_(options), ran_(std::move(ran)) {}

  std::vector<ThroughputRow> measure(Work work, std::int64_t batch, std::int64_t context) {
    rows_.assign(models_.size(), {.model = 0, .work = work, .batch = batch, .context = context});
    rates_.assign(models_.size(), {});
    // On a GPU the caches of one would leave no room for those of another.
    const bool in_turns = models_.front()->device().is_cpu();
    std::vector<std::function<void()>> work_of(models_.size());
    for (std::size_t m = 0; m < models_.size(); ++m) {
      rows_[m].model = static_cast<std::int64_t>(m);
      work_of[m] = prepare(m);
      if (in_turns) continue;
      for (std::int64_t i = 0; work_of[m] && i < options_.runs; ++i) time(m, work_of[m]);
      work_of[m] = {};
    }
    for (std::int64_t i = 0; in_turns && i < options_.runs; ++i) {
      for (std::size_t m = 0; m < models_.size(); ++m) time(m, work_of[m]);
    }
    summarise();
    std::erase_if(rows_, [](const ThroughputRow& row) { return row.median == 0; });
    return rows_;
  }

 private:
  std::int64_t tokens(const ThroughputRow& row) const { return row.work == Work::prefill ? row.context : options_.tokens; }

  // What model m does in a run, done once before: what only a first run takes (workspaces, memory, recorded steps) is in none
  // that is timed. Nothing where a GPU's memory does not hold the caches.
  std::function<void()> prepare(std::size_t m) {
    ThroughputRow& row = rows_[m];
    const Model& model = *models_[m];
    if (row.work == Work::requests) {
      row.cache_bytes = row.batch * cache_bytes(model, options_.tokens + 1);
      answer(model, row.batch, std::min(warm_up, options_.tokens), options_);
      return [this, &model, &row] { answer(model, row.batch, options_.tokens, options_); };
    }
    const std::int64_t count = tokens(row), room = row.context + (row.work == Work::prefill ? 0 : count);
    if (row.batch == ThroughputOptions::kLargest || model.device().is_cuda()) {
      const std::int64_t largest = largest_batch(model, room);
      constexpr std::int64_t most = 4096;  // of a small model, more than anybody decodes together
      if (row.batch == ThroughputOptions::kLargest) row.batch = std::clamp<std::int64_t>(largest, 1, most);
      if (row.batch > largest) {
        log_warning(concat("model ", m + 1, ": ", counted(row.batch, "sequence"), " of ", counted(room, "token"),
                           ": more than fits into memory, left out"));
        return {};
      }
    }
    row.cache_bytes = row.batch * cache_bytes(model, row.context);
    const auto subject = std::make_shared<Subject>(model, row.batch, room, options_);
    const bool prefill = row.work == Work::prefill;
    prefill ? subject->prefill(count) : subject->decode(row.context, std::min(warm_up, count));
    return [subject, count, prefill, &row] { prefill ? subject->prefill(count) : subject->decode(row.context, count); };
  }

  void time(std::size_t m, const std::function<void()>& run) {
    throw_if_interrupted();
    const double seconds = seconds_of(run);
    rates_[m].push_back(static_cast<double>(rows_[m].batch * tokens(rows_[m])) / seconds);
    ran_();
  }

  void summarise() {
    for (std::size_t m = 0; m < models_.size(); ++m) {
      if (rates_[m].empty()) continue;
      std::vector<double> ratios;
      for (std::size_t i = 0; i < rates_[m].size(); ++i)
        ratios.push_back(rates_.front().empty() ? 0 : rates_[m][i] / rates_.front()[i]);
      const auto [lowest, highest] = std::minmax_element(rates_[m].begin(), rates_[m].end());
      rows_[m].median = median(rates_[m]), rows_[m].lowest = *lowest, rows_[m].highest = *highest;
      rows_[m].ratio = median(ratios);
    }
  }

  const std::vector<const Model*>& models_;
  const ThroughputOptions& options_;
  std::function<void()> ran_;
  std::vector<ThroughputRow> rows_;
  std::vector<std::vector<double>> rates_;
};

}  // namespace throughput_detail

std::vector<ThroughputRow> measure_throughput(const std::vector<const Model*>& models, const ThroughputOptions& options,
                                              const std::function<void(std::int64_t, std::int64_t)>& progress) {
  using namespace throughput_detail;
  check(options, models.at(0)->device());
  std::vector<ThroughputRow> rows;
  const std::int64_t settings = options.requests > 0 ? 1 : std::ssize(options.contexts) * (std::ssize(options.batches) + 1);
  const std::int64_t total = settings * options.runs * std::ssize(models);
  std::int64_t done = 0;
  Setting setting(models, options, [&] {
    ++done;
    if (progress) progress(done, total);
  });
  const auto measure = [&](Work work, std::int64_t batch, std::int64_t context) {
    for (ThroughputRow& row : setting.measure(work, batch, context)) rows.push_back(row);
  };
  if (options.requests > 0) {
    measure(Work::requests, options.requests, 0);
    return rows;
  }
  for (const std::int64_t context : options.contexts) {
    measure(Work::prefill, 1, context);
    for (const std::int64_t batch : options.batches) measure(Work::decode, batch, context);
  }
  return rows;
}

}  // namespace molt
