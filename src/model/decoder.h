// The decoder section of a configuration: kinds of block by name, and which of them each layer is. Three forms:
//
//   type: pattern      blocks: {name: {mixer, mlp}}, num_blocks, pattern: names of one period, repeated to num_blocks (published)
//   type: layout       blocks: {name: {mixer, mlp}}, layout: one name a layer
//   type: fixed        block: {mixer, mlp}, num_blocks
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/config.h"

namespace molt {

struct DecoderConfig {
  std::string type = "pattern";
  std::map<std::string, BlockConfig> blocks;
  BlockConfig block;
  std::int64_t num_blocks = 0;
  std::vector<std::string> pattern, layout;

  void visit(ConfigVisitor& visitor);
  // One block a layer; settings that follow from another block's are filled in. UserError starts with `place`.
  std::vector<BlockConfig> expand(const std::string& place) const;
  // The shortest form that describes these blocks.
  static DecoderConfig of(const std::vector<BlockConfig>& blocks);
};

}  // namespace molt
