// Every sample of an evaluation, to be read in a browser.
#pragma once
#include "base/files.h"

namespace molt::report {

// Reads samples.jsonl of a task's folder of `molt evaluate` (with evaluation.json and, when it has ended, score.json) and writes
// samples.html beside it: items in their order in the file, each with its prompt, the expected answer and its samples, folded.
// Self-contained and escaped, as all pages are. Returns the page's path. UserError for a line that is broken.
fs::path write_samples_page(const fs::path& folder);

}  // namespace molt::report
