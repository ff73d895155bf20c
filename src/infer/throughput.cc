#include "infer/throughput.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "infer/step_runner.h"

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
    for (std::int64_t step = 0; step < count; ++step) {
      items_.clear();
      for (std::size_t i = 0; i < last_.size(); ++i) {
        SampledItem item{{std::span(&last_[i], 1), context + step, &leases_[i]}};
        item.sampling = &greedy_;
        items_.push_back(item);
      }
      runner_.run(items_);
      for (std::size_t i = 0; i < last_.size(); ++i) last_[i] = items_[i].token;
    }
  }

  // One sequence reads a prompt of `count` tokens.
  void prefill(std::int64_t count) {
    for (std::int64_t begin = 0; begin < count; begin += options_.prefill_tokens) {
      const std::int64_t end = std::min(count, begin + options_.prefill_tokens);
      SampledItem item{{std::span(tokens_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)), begin,
                        &leases_.front()}};
      if (end == count) item.sampling = &greedy_;
      runner_.run(std::span(&item, 1));
    }
  }

  std::int64_t cache_bytes(std::int64_t context) const { return pool_.bytes(context) * static_cast<std::int64_t>(last_.size()); }

 private:
  const ThroughputOptions& options_;
  CachePool pool_;
  StepRunner runner_;
  SamplingOptions greedy_;
  std::vector<CachePool::Lease> leases_;
  std::vector<std::int32_t> tokens_, last_;
  std::vector<SampledItem> items_;
};

void check(const ThroughputOptions& options) {
  const auto at_least_one = [](const char* name, std::int64_t value) {
    require(value >= 1, name, ": found ", value, ", expected at least 1");
  };
  for (const std::int64_t batch : options.batches) at_least_one("batch", batch);
  for (const std::int64_t context : options.contexts) at_least_one("context", context);
  at_least_one("tokens", options.tokens);
  at_least_one("runs", options.runs);
  at_least_one("prefill_tokens", options.prefill_tokens);
}

}  // namespace throughput_detail

std::vector<ThroughputRow> measure_throughput(const std::vector<const Model*>& models, const ThroughputOptions& options,
                                              const std::function<void(std::int64_t, std::int64_t)>& progress) {
  using namespace throughput_detail;
  check(options);
  std::vector<ThroughputRow> rows;
  const std::int64_t settings = std::ssize(options.contexts) * (std::ssize(options.batches) + 1);
  const std::int64_t total = settings * options.runs * std::ssize(models);
  std::int64_t done = 0;

  const auto measure = [&](bool prefill, std::int64_t batch, std::int64_t context) {
    const std::int64_t tokens = prefill ? context : options.tokens;
    std::vector<std::unique_ptr<Subject>> subjects;
    for (const Model* model : models) {
      subjects.push_back(std::make_unique<Subject>(*model, batch, prefill ? context : context + tokens, options));
    }
    const auto run = [&](Subject& subject, std::int64_t count) {
      prefill ? subject.prefill(count) : subject.decode(context, count);
    };
    std::vector<std::vector<double>> rates(models.size()), ratios(models.size());
    constexpr std::int64_t warm_up = 4;
    for (const auto& subject : subjects) run(*subject, std::min(warm_up, tokens));
    for (std::int64_t i = 0; i < options.runs; ++i) {
      for (std::size_t m = 0; m < subjects.size(); ++m) {
        throw_if_interrupted();
        const double seconds = seconds_of([&] { run(*subjects[m], tokens); });
        rates[m].push_back(static_cast<double>(batch * tokens) / seconds);
        ratios[m].push_back(rates[m].back() / rates.front().back());
        if (progress) progress(++done, total);
      }
    }
    for (std::size_t m = 0; m < subjects.size(); ++m) {
      const auto [lowest, highest] = std::minmax_element(rates[m].begin(), rates[m].end());
      rows.push_back({static_cast<std::int64_t>(m), prefill, batch, context, median(rates[m]), *lowest, *highest,
                      median(ratios[m]), subjects[m]->cache_bytes(context)});
    }
  };
  for (const std::int64_t context : options.contexts) {
    measure(true, 1, context);
    for (const std::int64_t batch : options.batches) measure(false, batch, context);
  }
  return rows;
}

}  // namespace molt
