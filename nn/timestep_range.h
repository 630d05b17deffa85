#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace prefusion::nn {

// The timesteps low <= t < high.
struct TimestepRange {
  int64_t low = 0;
  int64_t high = 0;

  // 1 for the items whose timestep lies inside, else 0: [B] (int64 or float) -> [B] fp32.
  at::Tensor contains(const at::Tensor& timesteps) const;
  std::string text() const;  // "LOW:HIGH"
};

// The range of "LOW:HIGH" with 0 <= LOW < HIGH; nothing for another text.
std::optional<TimestepRange> parse_timestep_range(std::string_view text);

// A network that says at which timesteps it is asked before it answers: what adapters that depend on them hang on.
class TimestepAnnouncer {
 public:
  using Listener = std::function<void(const at::Tensor& timesteps)>;

  virtual ~TimestepAnnouncer() = default;
  // `listener` is called at the start of every pass with the timesteps of its items [B], on their device.
  void on_timesteps(Listener listener) { listeners_.push_back(std::move(listener)); }

 protected:
  void announce_timesteps(const at::Tensor& timesteps) const {
    for (const auto& listener : listeners_) listener(timesteps);
  }

 private:
  std::vector<Listener> listeners_;
};

}  // namespace prefusion::nn
