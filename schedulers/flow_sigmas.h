#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "schedulers/scheduler.h"
#include "schedulers/scheduler_config.h"

// Noise levels of flow matching ("Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", arXiv
// 2403.03206): noisy_latents = (1 - sigma) * latents + sigma * noise, so that sigma = 1 is pure noise, and the timestep
// the network is told is sigma * T. Shifting moves a schedule towards noise; sigmas come out in descending order, one a
// step, without the final 0. In double or, where diffusers computes so, in single precision.
namespace prefusion::schedulers {

// Exponent of the shift for a picture of so many tokens: on the line through (base_image_seq_len, base_shift) and
// (max_image_seq_len, max_shift). Run error when the number of tokens is not known.
double dynamic_shift(const SchedulerConfig& resolved, std::optional<int64_t> image_tokens);

// Of FlowMatchEulerDiscreteScheduler, its options included but for invert_sigmas; and of
// FlowMatchHeunDiscreteScheduler, which has none of them. Usage error when shift_terminal leaves nothing to stretch.
std::vector<double> flow_match_sigmas(const SchedulerConfig& resolved, std::optional<int64_t> image_tokens,
                                      int64_t num_inference_steps);

// Of the multistep solvers with use_flow_sigmas, which space the levels differently.
std::vector<double> dpm_flow_sigmas(const SchedulerConfig& resolved, std::optional<int64_t> image_tokens,
                                    int64_t num_inference_steps);
std::vector<double> unipc_flow_sigmas(const SchedulerConfig& resolved, std::optional<int64_t> image_tokens,
                                      int64_t num_inference_steps);

// sigma * T of each.
std::vector<double> flow_timesteps(const SchedulerConfig& resolved, const std::vector<double>& sigmas);

// The levels training draws from: [T] fp32 on the CPU in ascending order, (i + 1) / T shifted by the config's constant
// shift; without it where the shift is dynamic, as in diffusers' training scripts.
at::Tensor flow_training_sigmas(const SchedulerConfig& resolved);

// What the input of a call holds at noise level sigmas[index], fp32 [S + 1].
InputScales flow_input_scales(const at::Tensor& sigmas, size_t index);

}  // namespace prefusion::schedulers
