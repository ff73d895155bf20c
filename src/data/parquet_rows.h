// The rows of a Parquet file as JSON objects, read by Apache Arrow. Compiled where its libraries are (cmake/arrow.cmake).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/records.h"

namespace molt {

// Columns called one of `keys`: text, whole and floating numbers, booleans, lists and structs of them, dictionary-encoded or not.
// What is null is left out: a file's conversations share one struct, which has fields that some of their messages lack. UserError
// for a file that cannot be read, that has none of the columns, or that has one of another type.
std::unique_ptr<Records> open_parquet(const fs::path& path, const std::vector<std::string>& keys);

}  // namespace molt
