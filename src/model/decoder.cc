#include "model/decoder.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace molt {

void DecoderConfig::visit(ConfigVisitor& v) {
  v.choice("type", type, {"pattern", "layout", "fixed"},
           "pattern: blocks repeated in a pattern; layout: one block name a layer; fixed: one kind of block");
  if (type == "fixed") {
    v.field("block", block, "The kind of block of every layer");
  } else {
    v.field("blocks", blocks, "Kinds of block by name");
  }
  if (type == "layout") {
    v.field("layout", layout, "Names of blocks, one a layer");
  } else {
    v.field("num_blocks", num_blocks, "Layers");
  }
  if (type == "pattern") v.field("pattern", pattern, "Names of blocks; fewer than num_blocks are repeated over and over");
}

namespace decoder_detail {

using Blocks = std::map<std::string, BlockConfig>;

std::vector<std::string> keys(const Blocks& blocks) {
  std::vector<std::string> names;
  for (const auto& [name, block] : blocks) names.push_back(name);
  return names;
}

// `names` as blocks; `place` names the list.
std::vector<BlockConfig> look_up(const std::vector<std::string>& names, const Blocks& blocks, const std::string& place) {
  std::vector<BlockConfig> found;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string entry = concat(place, "[", i, "]");
    require(names[i] != "...", entry,
            ": found \"...\", expected the name of a block: write out one name a layer, or one period of "
            "the pattern (pattern: [attention_block, mamba_block]), which is repeated to num_blocks");
    const auto block = blocks.find(names[i]);
    if (block == blocks.end()) {
      const std::string near = nearest(names[i], keys(blocks));
      fail(entry, ": found \"", names[i], "\", expected a name under blocks",
           near.empty() ? "" : concat(" (did you mean \"", near, "\"?)"));
    }
    found.push_back(block->second);
  }
  return found;
}

// What the blocks leave open and another one says.
void complete(Blocks& blocks) {
  std::vector<std::shared_ptr<const MixerConfig>> all;
  for (const auto& [name, block] : blocks) {
    for (const auto& [key, mixer] : block.mixers) all.push_back(mixer);
  }
  for (auto& [name, block] : blocks) {
    for (auto& [key, mixer] : block.mixers) {
      std::unique_ptr<MixerConfig> completed = mixer->clone();
      completed->complete(all);
      mixer = std::move(completed);
    }
  }
}

}  // namespace decoder_detail

std::vector<BlockConfig> DecoderConfig::expand(const std::string& place) const {
  using namespace decoder_detail;
  require(num_blocks >= 0, place, ".num_blocks: found ", num_blocks, ", expected at least 1");
  if (type == "fixed") return std::vector<BlockConfig>(static_cast<std::size_t>(num_blocks), block);

  Blocks completed = blocks;
  complete(completed);
  if (type == "layout") return look_up(layout, completed, place + ".layout");

  const std::vector<std::string> names = pattern.empty() && blocks.size() == 1 ? keys(blocks) : pattern;
  require(!names.empty() || num_blocks == 0, place, ".pattern: missing, expected names of blocks");
  const std::vector<BlockConfig> period = look_up(names, completed, place + ".pattern");
  const auto layers = num_blocks == 0 ? names.size() : static_cast<std::size_t>(num_blocks);
  require(names.empty() || layers % names.size() == 0, place, ".num_blocks: found ", num_blocks,
          ", expected a multiple of the pattern's ", names.size(), " entries, which are repeated");
  std::vector<BlockConfig> result;
  for (std::size_t i = 0; i < layers; ++i) result.push_back(period[i % period.size()]);
  return result;
}

DecoderConfig DecoderConfig::of(const std::vector<BlockConfig>& layers) {
  DecoderConfig decoder;
  if (layers.empty()) return decoder;
  decoder.num_blocks = static_cast<std::int64_t>(layers.size());
  std::map<std::string, std::string> names;  // of the kinds of block, by their YAML
  for (const BlockConfig& layer : layers) {
    const std::string text = to_yaml(layer);
    if (!names.count(text)) {
      const std::string type = layer.identity ? "identity" : layer.mixer().type();
      std::string name = type + "_block";
      for (int number = 2; decoder.blocks.count(name); ++number) name = concat(type, "_block_", number);
      decoder.blocks[name] = layer;
      names[text] = name;
    }
    decoder.layout.push_back(names[text]);
  }
  if (names.size() == 1) {
    decoder.type = "fixed";
    decoder.block = layers[0];
  } else {
    decoder.type = "layout";
  }
  return decoder;
}

}  // namespace molt
