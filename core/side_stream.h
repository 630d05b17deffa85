#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <functional>
#include <optional>

namespace prefusion {

// A second queue of a GPU, for work that one thread gives it while another goes on with its own. The CPU has none to
// spare: there the work is done at once.
class SideStream {
 public:
  using Work = std::function<at::Tensor()>;

  explicit SideStream(at::Device device);

  // What another thread is to call once, for what `work` makes: it begins behind all that this thread has given the
  // device until now, and beside what it gives afterwards. `work` ends by bringing its result to the host; what it
  // reads must stay until then.
  Work beside(Work work) const;

 private:
  std::optional<c10::Stream> stream_;
};

}  // namespace prefusion
