#include "training/align.h"

#include <cstdio>

#include "core/error.h"
#include "losses/registry.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/preference_options.h"

namespace prefusion::tools {
namespace {

struct AlignCommand : CommonOptions {
  training::AlignOptions align;
  bool list_objectives = false;
};

void add_model_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Model";
  app.add_option("--model", o.model, "Diffusers-layout model folder to align")->group(group);
  app.add_option("--output", o.output, "Folder for weights, metrics, checkpoints and report")->group(group);
  app.add_option(
         "--adapter", o.adapter,
         "lora (low-rank adapter; some objectives train an adapter of their own) or full (all denoiser weights)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--rank", o.rank, "LoRA rank")->capture_default_str()->group(group);
  app.add_option("--lora-alpha", o.lora_alpha, "LoRA alpha, scale = alpha / rank; 0 takes the rank")
      ->capture_default_str()
      ->group(group);
  app.add_option("--target-modules", o.target_modules, "Layers that get a LoRA, by path ending (comma-separated)")
      ->delimiter(',')
      ->capture_default_str()
      ->group(group);
  app.add_flag(
         "--train-text-encoder", o.train_text_encoder,
         "Train a LoRA on the CLIP text encoders too (SD 1.x, 2.x, SDXL): attention layers; prompts are then encoded "
         "in every step")
      ->group(group);
  app.add_option("--text-encoder-rank", o.text_encoder_rank, "Rank of the text encoders' LoRA; 0 takes --rank")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--text-encoder-alpha", o.text_encoder_alpha, "Its alpha; 0 takes its rank")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option(
         "--base-dtype", o.base_dtype,
         "Keep the frozen weights beside a LoRA in a byte each: int8 or fp8 (docs/memory.md); by default in --dtype")
      ->check(CLI::IsMember({"int8", "fp8"}))
      ->group(group);
  app.add_flag("--stream-weights", o.stream_weights,
               "Keep the frozen weights of blocks, T5's included, in host memory and bring each layer's to the device "
               "when it is its turn: slower, for models that do not fit (docs/memory.md)")
      ->group(group);
  app.add_option(
         "--init-user-adapter", o.init_user_adapter,
         "User adapter to start from; with --objective-args train=users it gets the data's users and stays else")
      ->group(group);
  app.add_option("--user-embeddings", o.user_embeddings,
                 "Safetensors file with the states of each user, made elsewhere; they are not trained")
      ->group(group);
  app.add_option("--experts", o.experts, "LoRAs that a gate is trained to fuse (comma-separated)")
      ->delimiter(',')
      ->group(group);
  app.add_option("--lora-format", o.lora_format, "Names in the written LoRA: diffusers or kohya")
      ->check(CLI::IsMember({"diffusers", "kohya"}))
      ->capture_default_str()
      ->group(group);
}

void add_objective_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Objective";
  app.add_option("--objective", o.objective, "Name of the objective; --list-objectives shows all")
      ->capture_default_str()
      ->group(group);
  app.add_option("--beta", o.beta,
                 "Strength in the convention of the method's public code (Diffusion-DPO: 5000 is kappa 2500)")
      ->group(group);
  app.add_option("--kappa", o.kappa, "Strength directly: the coefficient of the error difference in the logit")
      ->group(group);
  app.add_option(
         "--auto-kappa", o.auto_kappa,
         "Let kappa follow the run so that the gradient factor sigmoid(-u) stays near this number, such as 0.2; "
         "--beta or --kappa is where it starts")
      ->group(group);
  app.add_option("--objective-args", o.objective_args, "The objective's own parameters: k=v,k=v")->group(group);
  app.add_option("--reference", o.reference,
                 "none, frozen, adapter-off, cached (errors computed ahead and kept), ema:DECAY, refresh:N[:MIX] or "
                 "extrapolated:A; by default what objective and adapter ask for")
      ->group(group);
  app.add_option(
         "--reference-draws", o.reference_draws,
         "With --reference cached: draws (of noise, timestep, flip, ...) a group has, used in turn from epoch to "
         "epoch; 0 draws anew in every epoch, which costs a reference pass for each")
      ->capture_default_str()
      ->group(group);
}

void add_loss_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Additions to the objective";
  app.add_option("--loser-weight", o.loss.loser_weight,
                 "Factor of what the other items gain or lose; below 1 it pays less to get worse at the rejected ones")
      ->capture_default_str()
      ->group(group);
  app.add_option("--safe-loser", o.loss.safe_loser,
                 "Scale the rejected item's gradient so that the chosen error does not rise (mu of Diffusion-SDPO)")
      ->group(group);
  app.add_option("--sft-weight", o.loss.sft_weight, "Weight of the chosen item's error, added to the loss")
      ->capture_default_str()
      ->group(group);
  app.add_option("--anchor-weight", o.loss.anchor_weight,
                 "Weight of the mean squared distance between policy and reference predictions, added to the loss")
      ->capture_default_str()
      ->group(group);
  app.add_option("--label-smoothing", o.loss.label_smoothing, "Probability that a pair's label is wrong")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--soft-labels", o.loss.soft_labels, "Take labels between 0 and 1 for probabilities")->group(group);
  app.add_option("--margin-drop", o.loss.margin_drop,
                 "Share of groups trained on their --sft-weight and --anchor-weight terms alone")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--swap-empty-prompts", o.loss.swap_empty_prompts,
               "Exchange chosen and rejected where the prompt was dropped: the unconditional branch learns to avoid")
      ->group(group);
  app.add_option("--logit-weighting", o.logit_weighting,
                 "Weight of a timestep inside the logit: none, min-snr[:GAMMA], debiased, like-epsilon, sigma-sqrt or "
                 "cosmap")
      ->capture_default_str()
      ->group(group);
  app.add_option("--loss-weighting", o.loss_weighting, "The same, of a group's loss")
      ->capture_default_str()
      ->group(group);
}

void add_online_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group =
      "Training on the policy's own samples (online objectives, and others with --prompts for --data)";
  auto& online = o.online;
  app.add_option(
         "--prompts", online.prompts,
         "Prompts to sample: .txt with one a line, or .jsonl with 'prompt'. With an objective on pairs, lists or "
         "pictures they take the place of --data: it learns from the samples as --reward orders them (online DPO)")
      ->group(group);
  app.add_option(
         "--reward", online.reward,
         "What judges the samples: shapes, KIND=PATH of a reward model (docs/rewards.md), or for longalign shapes-soft")
      ->capture_default_str()
      ->group(group);
  app.add_option("--prompts-per-round", online.prompts_per_round, "Prompts sampled before training on what came out")
      ->capture_default_str()
      ->group(group);
  app.add_option("--group-size", online.group_size, "Samples (with spo: trajectories) of a prompt")
      ->capture_default_str()
      ->group(group);
  app.add_option("--online-steps", online.sampling_steps,
                 "Denoising steps of a sample; fewer than pictures are made with later (--sample-steps) will do")
      ->capture_default_str()
      ->group(group);
  app.add_option(
         "--online-guidance", online.guidance,
         "Guidance scale of sampling and of training on the samples; what a distilled model (FLUX.1 dev) is told")
      ->capture_default_str()
      ->group(group);
  app.add_option("--eta", online.eta,
                 "Noise of the stochastic DDIM steps; 1 is DDPM's, 0 none (where steps are not what is learnt from). "
                 "That of flow models is in --objective-args noise_level=X")
      ->capture_default_str()
      ->group(group);
  app.add_option("--sde-window", online.window,
                 "Stochastic steps a round, sliding over the schedule (MixGRPO); 0 takes all of them")
      ->capture_default_str()
      ->group(group);
  app.add_option("--inner-epochs", online.inner_epochs, "Passes over a round's samples")
      ->capture_default_str()
      ->group(group);
}

void add_data_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Data";
  add_record_options(app, o);
  app.add_flag("--random-crop", o.random_crop, "Crop at random instead of at the centre (needs --no-cache)")
      ->group(group);
  app.add_option("--cache", o.cache, "Folder of the cache of encoded pictures and prompts; default OUTPUT/cache")
      ->group(group);
  app.add_flag("--no-cache", o.no_cache, "Encode pictures and prompts anew in every step")->group(group);
}

void add_optimisation_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Optimisation";
  app.add_option("--steps", o.steps, "Optimizer steps; 0 goes by --epochs")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--epochs", o.epochs, "Passes over the training groups")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--batch-size", o.batch_size, "Groups (pairs) a micro-step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--accumulate", o.accumulate, "Micro-steps an optimizer step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--optimizer", o.optimizer,
                 "adamw, adamw8bit (moments in bytes: a quarter of the memory) or adafactor (of the second moment only "
                 "means over rows and columns: hardly any memory)")
      ->check(CLI::IsMember({"adamw", "adamw8bit", "adafactor"}))
      ->capture_default_str()
      ->group(group);
  app.add_option(
         "--optimizer-args", o.optimizer_args,
         "The optimizer's own parameters: k=v,k=v. adamw, adamw8bit: beta1=0.9, beta2=0.999, eps=1e-8; adafactor: "
         "decay_rate=-0.8, clip_threshold=1, eps1=1e-30, eps2=1e-3, beta1 (none), scale_parameter=0, relative_step=0, "
         "warmup_init=0")
      ->group(group);
  app.add_option("--lr", o.lr, "Peak learning rate")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--lr-schedule", o.lr_schedule, "constant, linear or cosine (the latter two to zero)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--warmup", o.warmup, "Steps of linear warmup")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--max-grad-norm", o.max_grad_norm, "Gradients are scaled to this global norm at most; 0 never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--weight-decay", o.weight_decay,
                 "Decoupled weight decay: the part of a weight that a step of rate 1 takes away")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--ema", o.ema, "Decay of the weight average that is evaluated and written; 0 for none")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--gradient-checkpointing", o.gradient_checkpointing,
               "Recompute activations in the backward pass: less memory, more time")
      ->group(group);
  app.add_option("--activation-memory", o.activation_memory_gb,
                 "GB of activations that blocks may keep for the backward pass; those that save most of it for their "
                 "operations are recomputed instead (docs/memory.md). 0 keeps all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_flag("--cuda-graph", o.cuda_graph,
               "Record a step's forward and backward passes once for each shape and replay them as one launch: for "
               "small networks and batches, where the host is slower than the GPU. Gradients keep their memory")
      ->group(group);
  app.add_option("--spike-factor", o.spike_factor,
                 "Skip a step whose gradient norm exceeds so many running medians; 0 never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--skip-nonfinite", o.skip_nonfinite, "Non-finite steps that are skipped before the run stops")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
}

void add_tracking_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Tracking";
  app.add_option("--log-every", o.log_every, "Steps between rows of metrics.jsonl")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--save-every", o.save_every, "Steps between checkpoints")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--keep", o.keep, "Checkpoints kept besides the best one; 0 keeps all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--resume", o.resume, "auto (newest checkpoint in --output, if any) or a checkpoint folder")
      ->group(group);
  app.add_option("--eval-every", o.eval_every, "Steps between held-out measurements; 0 never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--dump-groups", o.dump_groups,
                 "Parquet file with a row a held-out group, written with every measurement: errors, margin, hardness "
                 "(docs/formats.md)")
      ->group(group);
  app.add_option("--alarm-drift", o.alarm_drift,
                 "Over-optimisation alarm: held-out chosen error above the reference's by this share")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--sample-every", o.sample_every, "Steps between sample pictures; 0 never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--sample-prompts", o.sample_prompts, "Text file with a prompt a line")->group(group);
  app.add_option("--sample-steps", o.sample_steps, "Sampling steps of sample pictures")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--sample-guidance", o.sample_guidance, "Guidance scale of sample pictures")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--trace", o.trace, "Folder for the tensors of the first steps (docs/formats.md)")->group(group);
  app.add_option("--trace-steps", o.trace_steps, "How many steps are traced")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_flag(
         "--dry-run", o.dry_run,
         "Print parameters, batch, kappa, memory, seconds per step and per sample, and the run's time; train nothing")
      ->group(group);
}

void add_options(CLI::App& app, AlignCommand& command) {
  add_model_options(app, command.align);
  add_objective_options(app, command.align);
  add_loss_options(app, command.align);
  add_online_options(app, command.align);
  add_start_options(app, command.align);
  add_timestep_options(app, command.align);
  add_data_options(app, command.align);
  add_held_out_options(app, command.align);
  add_optimisation_options(app, command.align);
  add_tracking_options(app, command.align);
  app.add_flag("--list-objectives", command.list_objectives, "Print every objective with what it needs, and exit")
      ->group("Objective");
  app.footer(
      "Example:\n"
      "  prefusion align --model assets/shapes --data assets/shapes-preferences.parquet --output run --steps 60 \\\n"
      "      --batch-size 24 --kappa 1000 --lr 1e-4 --no-hflip");
}

// An adapter to start from brings its own shape.
const std::vector<std::string> kAdapterShape = {"rank", "lora-alpha", "target-modules"};

void check_adapter_shape(const CLI::App& app) {
  for (const auto& flag : kAdapterShape) {
    check_usage(app.count("--" + flag) == 0, "--", flag,
                " beside --init-lora: rank, alpha and layers are those of the file; leave --", flag, " out");
  }
}

void run(const AlignCommand& command, const CLI::App& app) {
  if (command.list_objectives) {
    std::printf("%s", losses::objective_table().c_str());
    return;
  }
  training::AlignOptions options = command.align;
  options.seed = command.seed;
  options.progress = !command.quiet;
  const bool has_shape = !options.init_lora.empty();
  if (has_shape) check_adapter_shape(app);
  options.resolved_config = resolved_config(app, has_shape ? kAdapterShape : std::vector<std::string>());
  const at::Device device = command.torch_device();
  const at::ScalarType dtype = command.scalar_type();
  training::validate(options);
  check_usage(!options.cuda_graph || device.is_cuda(), "--cuda-graph needs a CUDA device, this run is on ",
              device.str());
  training::align(options, device, dtype);
}

}  // namespace

void add_align(CLI::App& root) {
  add_command<AlignCommand>(root, "align", "Fine-tunes a diffusion model on preferences", add_options, run);
}

}  // namespace prefusion::tools
