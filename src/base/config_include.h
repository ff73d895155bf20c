// `include` at the top of a configuration file: files whose keys hold where the file itself says nothing.
//
//   include: [base.yaml, data.yaml]     or one name; paths are relative to the file that names them
//
// Sections are merged key by key, anything else is replaced whole. Of several files the later one counts; files may include
// others.
#pragma once
#include "base/config_tree.h"
#include "base/files.h"

namespace molt::config_tree {

// The file's tree with what it includes; the key `include` is gone. UserError also for a file that includes itself.
NodePointer read_with_includes(const fs::path& path);

}  // namespace molt::config_tree
