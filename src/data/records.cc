#include "data/records.h"

#include "base/error.h"
#include "data/line_batches.h"
#include "data/parquet_rows.h"

namespace molt {

std::unique_ptr<Records> open_records(const fs::path& path, [[maybe_unused]] const std::vector<std::string>& keys) {
  if (!MappedFile::open(path)->text().starts_with("PAR1")) return std::make_unique<LineBatches>(path);
#ifdef MOLT_PARQUET
  return open_parquet(path, keys);
#else
  fail(path.string(),
       ": is a Parquet file, which this build of molt cannot read: it was configured without Apache Arrow's "
       "libraries, which the Python package pyarrow holds; expected JSONL");
#endif
}

}  // namespace molt
