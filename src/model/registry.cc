#include "base/error.h"
#include "model/mixer.h"
#include "model/mixers/attention/attention.h"
#include "model/mixers/identity/identity.h"
#include "model/mixers/mamba/mamba.h"

namespace molt {

namespace registry_detail {

const MixerKind& find(std::string MixerKind::* key, const char* what, const std::string& wanted, const std::string& place) {
  std::string known;
  for (const MixerKind& kind : mixer_kinds()) {
    if (kind.*key == wanted) return kind;
    known += (known.empty() ? "" : ", ") + kind.*key;
  }
  fail(place, ": unknown ", what, " \"", wanted, "\", expected one of ", known);
}

}  // namespace registry_detail

const std::vector<MixerKind>& mixer_kinds() {
  static const std::vector<MixerKind> kinds{attention_kind(), sliding_window_kind(), mamba_kind(), identity_kind()};
  return kinds;
}

const MixerKind& mixer_kind(const std::string& type, const std::string& place) {
  return registry_detail::find(&MixerKind::type, "mixer type", type, place);
}

const MixerKind& mixer_kind_by_letter(const std::string& letter, const std::string& place) {
  return registry_detail::find(&MixerKind::letter, "mixer letter", letter, place);
}

}  // namespace molt
