// Working memory of a CPU kernel, for the length of a call.
#pragma once
#include <cstdint>
#include <new>

namespace molt::ops {

// `count` numbers that begin where a cache line does, not initialised. On the stack where they are few: a call of a small model's
// takes microseconds, and beyond a KiB malloc has no quick way. (Loads of whole vectors across two lines take twice as long.)
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : data_(count <= kLocal ? local_ : static_cast<T*>(::operator new(static_cast<std::size_t>(count) * sizeof(T), kLine))) {}
  ~Scratch() {
    if (data_ != local_) ::operator delete(data_, kLine);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() { return data_; }

 private:
  static constexpr std::align_val_t kLine{64};
  static constexpr std::int64_t kLocal = (16 << 10) / sizeof(T);
  alignas(64) T local_[kLocal];
  T* data_;
};

}  // namespace molt::ops
