#include "training/pretrain.h"
#include "tools/command.h"
#include "tools/commands.h"

namespace prefusion::tools {
namespace {

struct PretrainCommand : CommonOptions {
  training::PretrainOptions pretrain;
};

void add_options(CLI::App& app, PretrainCommand& command) {
  auto& o = command.pretrain;
  app.add_option("--model", o.model, "Diffusers-layout folder of configs; components with weights start from them")
      ->required();
  app.add_option("--output", o.output, "Folder the trained model is written to")->required();
  app.add_option("--num-scenes", o.num_scenes, "Distinct captioned scenes of the shapes world to train on")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--vae-steps", o.vae_steps, "Optimizer steps of the VAE; skipped when it has weights")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--vae-batch-size", o.vae_batch_size, "Pictures a VAE step")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--vae-lr", o.vae_lr, "Peak learning rate of the VAE (cosine)")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "Optimizer steps of denoiser and text encoder")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--batch-size", o.batch_size, "Pictures a step")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--lr", o.lr, "Peak learning rate (cosine to zero)")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--warmup", o.warmup, "Steps of linear warmup")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--weight-decay", o.weight_decay, "Decoupled weight decay")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-grad-norm", o.max_grad_norm, "Gradients are scaled to this global norm at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--ema", o.ema_decay, "Decay of the weight average that is written")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--empty-prompt-rate", o.empty_prompt_rate,
                 "Share of captions replaced by the empty one (for guidance)")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--snr-gamma", o.snr_gamma, "min-SNR weighting; 0 for none")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--log-every", o.log_every, "Steps between rows of metrics.jsonl")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--save-every", o.save_every, "Steps between checkpoints")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--stop-after", o.stop_after,
                 "End with a checkpoint after this step, to go on with --resume (perhaps with other --steps); 0 never")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--resume", o.resume, "Go on from the newest checkpoint in --output");
}

void run(const PretrainCommand& command, const CLI::App& app) {
  training::PretrainOptions options = command.pretrain;
  options.seed = command.seed;
  options.stored_dtype = command.scalar_type();
  options.progress = !command.quiet;
  training::pretrain(options, command.torch_device());
}

}  // namespace

void add_pretrain(CLI::App& root) {
  add_command<PretrainCommand>(
      root, "pretrain", "Trains a small model from its configs on the shapes world: how the bundled model was made",
      add_options, run);
}

}  // namespace prefusion::tools
