#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "losses/registry.h"
#include "nn/layers.h"
#include "nn/lora.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"
#include "training/reference_policy.h"
#include "training/trace.h"
#include "training/train_step.h"

namespace prefusion::training {
namespace {

using tests::near;

constexpr const char* kTransformer = R"({"_class_name": "SD3Transformer2DModel", "sample_size": 8, "patch_size": 2,
  "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 3,
  "joint_attention_dim": 20, "caption_projection_dim": 24, "pooled_projection_dim": 14, "pos_embed_max_size": 6,
  "qk_norm": "rms_norm", "dual_attention_layers": [0]})";
constexpr const char* kScheduler = R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})";
constexpr double kKappa = 300;

EncodedBatch batch() {
  const at::Generator generator = make_torch_generator(8);
  EncodedBatch batch;
  batch.mean = at::randn({3, 2, 4, 6, 8}, generator);
  batch.std = at::rand({3, 2, 4, 6, 8}, generator) * 0.2;
  batch.prompts = {.encoder_hidden_states = at::randn({3, 9, 20}, generator),
                   .encoder_mask = {},
                   .pooled = at::randn({3, 14}, generator)};
  for (int64_t i = 0; i < 3; ++i) batch.groups.push_back({.item = i, .draw = 1});
  return batch;
}

// A LoRA that has been trained: its second half is not zero.
std::shared_ptr<nn::LoraAdapter> make_adapter(unet::Denoiser& denoiser) {
  const nn::LoraConfig config{.rank = 3, .alpha = 5, .target_modules = {"to_q", "add_k_proj", "to_out.0", "ff.net.2"}};
  const at::NoGradGuard no_grad;
  const at::Generator generator = make_torch_generator(9);
  auto adapter = nn::LoraAdapter::create(denoiser, config, generator);
  for (const auto& entry : adapter->entries()) at::Tensor(entry.B).normal_(0, 0.1, generator);
  return adapter;
}

void write_run(const std::filesystem::path& folder, unet::Denoiser& denoiser, const nn::LoraAdapter& adapter) {
  make_folder(folder / "transformer");
  write_file(folder / "transformer/config.json", kTransformer);
  write_safetensors(folder / "transformer/diffusion_pytorch_model.safetensors", nn::tensor_map(denoiser),
                    {{"format", "pt"}});
  make_folder(folder / "scheduler");
  write_file(folder / "scheduler/scheduler_config.json", kScheduler);
  TensorMap lora;
  for (const auto& [name, tensor] : adapter.parameters()) lora[name] = tensor.detach();
  std::string targets;
  for (const auto& target : adapter.config().target_modules) targets += (targets.empty() ? "" : ",") + target;
  write_safetensors(folder / "lora.safetensors", lora,
                    {{"rank", "3"}, {"alpha", "5"}, {"target_modules", targets}, {"kappa", concat(kKappa)}});
}

// One step of diffusion-dpo with LoRA on a small SD3, traced, and made again by diffusers, peft and autograd.
TEST(FlowTrainingReference, StepOfStableDiffusion3EqualsDiffusers) {
  const tests::TempDir folder;
  const std::shared_ptr<unet::Denoiser> denoiser = unet::make_denoiser(kTransformer, "test");
  nn::init_weights(*denoiser, make_torch_generator(7));
  const auto adapter = make_adapter(*denoiser);
  const auto reference = adapter_off_reference(denoiser, adapter);
  const losses::Objective& objective = losses::find_objective("diffusion-dpo");
  const schedulers::NoiseSchedule schedule(schedulers::parse_scheduler_config(kScheduler, "test"));
  TrainStepOptions options;
  options.params = losses::resolve_params(objective.info, "", std::nullopt, kKappa);
  options.scaling = {.scale = 1.5, .shift = 0.06};
  options.timesteps = TimestepSampler::parse("logit-normal", "", schedule);
  options.seed = 5;
  const TrainStep step(*denoiser, reference.get(), schedule, objective, options);
  const EncodedBatch groups = batch();
  const StepTensors found = step.forward(groups, step.draw_timesteps(groups));
  found.loss.loss.backward();
  write_run(folder.path(), *denoiser, *adapter);
  TraceWriter trace(folder.path(), 1, {}, options.seed);
  trace.add(found, groups);
  trace.write(1, found.loss.loss, at::zeros({}));

  const std::filesystem::path made = tests::run_reference_script("make_flow_training.py", {folder.path().string()});
  const TensorMap expected = read_safetensors(made / "expected.safetensors");
  const TensorMap traced = read_safetensors(folder / "step-000001.safetensors");
  EXPECT_TRUE(at::equal(traced.at("sigmas"), expected.at("sigmas")));
  for (const char* name : {"noisy_latents", "target"}) EXPECT_TRUE(near(traced.at(name), expected.at(name), 1e-6));
  for (const char* name : {"prediction", "error", "error_ref"}) {
    EXPECT_TRUE(near(traced.at(name), expected.at(name), 1e-5)) << name;
  }
  // kappa times a difference of errors amplifies their last digits.
  EXPECT_TRUE(near(traced.at("loss"), expected.at("loss"), 1e-3));
  EXPECT_GT((traced.at("error") - traced.at("error_ref")).abs().max().item<double>(), 1e-4);
  ASSERT_EQ(adapter->parameters().size(), expected.size() - 7);
  for (const auto& [name, tensor] : adapter->parameters()) {
    EXPECT_TRUE(near(tensor.grad(), expected.at("grad." + name), 1e-3)) << name;
  }
}

}  // namespace
}  // namespace prefusion::training
