// A model's layout as a strip, one sign a layer.
#pragma once
#include <string>
#include <vector>

namespace molt {

constexpr const char* layout_legend = "a attention, w sliding window, M Mamba, - identity";

// Letters of hybrid_block_layout ("t m2 t m2") as "aMaM".
inline std::string layout_strip(const std::vector<std::string>& letters) {
  std::string signs;
  for (const std::string& letter : letters) signs += letter == "t" ? 'a' : letter == "swa" ? 'w' : letter == "m2" ? 'M' : '-';
  return signs;
}

}  // namespace molt
