#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "training/adafactor.h"
#include "training/optimizer.h"

namespace prefusion::training {

enum class OptimizerKind { kAdamW, kAdamW8bit, kAdafactor };

// Which optimizer a run has, and how it is set.
struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::kAdamW;
  AdamWOptions adamw;
  AdafactorOptions adafactor;

  // Whether the learning rate is the optimizer's own, so that one given is of no effect.
  bool has_own_rate() const { return kind == OptimizerKind::kAdafactor && adafactor.relative_step; }
};

// `name` is adamw, adamw8bit or adafactor; `args` are the optimizer's own parameters as "k=v,k=v" (empty: defaults):
// beta1, beta2 and eps of the first two; beta1, decay_rate, clip_threshold, eps1, eps2, scale_parameter, relative_step
// and warmup_init (0 or 1) of adafactor. Usage error, which says what there is, for others.
OptimizerSpec parse_optimizer(std::string_view name, std::string_view args);

std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec, std::vector<NamedTensor> parameters,
                                          double weight_decay);

}  // namespace prefusion::training
