// Encoding and decoding speed. MOLT_BENCH_TOKENIZER names a folder or tokenizer.json and MOLT_BENCH_TEXT a text file, encoded
// line by line; without them stories260k and wikitext2 of MOLT_SHARED serve. bench/peers/tokenizer.py runs it beside
// `tokenizers`.
#include <benchmark/benchmark.h>

#include <cstdlib>

#include "text/tokenizer.h"

namespace molt {
namespace tokenizer_bench {

fs::path path_from(const char* variable, const char* below_shared) {
  if (const char* path = std::getenv(variable)) return path;
  const char* shared = std::getenv("MOLT_SHARED");
  return fs::path(shared ? shared : "/nowhere") / below_shared;
}

struct Input {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<std::string> lines;
  std::int64_t bytes = 0;

  Input() : tokenizer(Tokenizer::load(path_from("MOLT_BENCH_TOKENIZER", "data/stories260k"))) {
    LineReader reader(path_from("MOLT_BENCH_TEXT", "data/wikitext2/test.txt"));
    for (std::string_view line; reader.next(line);) {
      lines.emplace_back(line);
      bytes += static_cast<std::int64_t>(line.size());
    }
  }
};

const Input& input() {
  static const Input read;
  return read;
}

void encode(benchmark::State& state) {
  const auto& [tokenizer, lines, bytes] = input();
  for (auto _ : state) {
    for (std::size_t i = static_cast<std::size_t>(state.thread_index()); i < lines.size();
         i += static_cast<std::size_t>(state.threads())) {
      benchmark::DoNotOptimize(tokenizer->encode(lines[i]));
    }
  }
  state.SetBytesProcessed(state.iterations() * bytes / state.threads());
}
BENCHMARK(encode)->ThreadRange(1, 2)->UseRealTime()->Unit(benchmark::kMillisecond);

void decode(benchmark::State& state) {
  const auto& [tokenizer, lines, bytes] = input();
  std::vector<std::vector<std::int32_t>> encoded;
  for (const auto& line : lines) encoded.push_back(tokenizer->encode(line));
  for (auto _ : state) {
    for (const auto& ids : encoded) benchmark::DoNotOptimize(tokenizer->decode(ids));
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}
BENCHMARK(decode)->Unit(benchmark::kMillisecond);

void load(benchmark::State& state) {
  const fs::path path = path_from("MOLT_BENCH_TOKENIZER", "data/stories260k");
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::load(path));
}
BENCHMARK(load)->Unit(benchmark::kMillisecond);

}  // namespace tokenizer_bench
}  // namespace molt
