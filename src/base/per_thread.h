// Working memory that outlives a call without belonging to it.
#pragma once
#include <array>
#include <atomic>
#include <memory>

namespace molt {

// The calling thread's number, from zero. A thread that ends leaves its number to the next one that begins.
std::size_t thread_number();

// Objects of type T that threads borrow for the length of a call. A thread gets back the one that it returned last, so that what
// the object remembers stays in that processor's cache; threads that share a place (more than `places` of them) make anew what
// another one has out. Takes no lock.
template <class T>
class PerThread {
 public:
  // Hands the object back when it goes.
  class Loan {
   public:
    explicit Loan(std::atomic<T*>& place) : place_(&place), object_(place.exchange(nullptr, std::memory_order_acquire)) {
      if (!object_) object_ = std::make_unique<T>();
    }
    ~Loan() { delete place_->exchange(object_.release(), std::memory_order_acq_rel); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    T& operator*() const { return *object_; }

   private:
    std::atomic<T*>* place_;
    std::unique_ptr<T> object_;
  };

  PerThread() = default;
  ~PerThread() {
    for (auto& place : places_) delete place.object.load(std::memory_order_acquire);
  }
  PerThread(const PerThread&) = delete;
  PerThread& operator=(const PerThread&) = delete;

  Loan borrow() { return Loan(places_[thread_number() % places].object); }

 private:
  static constexpr std::size_t places = 64;
  struct alignas(64) Place {  // a cache line, so that neighbours do not disturb each other
    std::atomic<T*> object{nullptr};
  };
  std::array<Place, places> places_;
};

}  // namespace molt
