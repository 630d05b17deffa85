#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "losses/loss_options.h"
#include "training/lr_schedule.h"
#include "training/reference_spec.h"

namespace prefusion::losses {
struct ObjectiveInfo;
}

namespace prefusion::training {

enum class AdapterKind { kLora, kFull, kUsers, kGate };

// Of objectives that train on the policy's own samples.
struct OnlineOptions {
  std::filesystem::path prompts;  // .txt or .jsonl
  std::string reward = "shapes";  // make_judge
  int64_t prompts_per_round = 8;  // prompts sampled before the policy is trained on what came out
  int64_t group_size = 8;         // trajectories a prompt
  int64_t sampling_steps = 20;
  double guidance = 5.0;     // part of the policy: training predicts with it as well
  double eta = 1.0;          // noise of the stochastic DDIM steps, 1 is DDPM's
  int64_t window = 0;        // stochastic steps a round, sliding over the schedule (MixGRPO); 0: all of them
  int64_t inner_epochs = 1;  // passes over a round

  bool operator==(const OnlineOptions&) const = default;
};

// Everything `prefusion align` can be told. Defaults live here alone: help, run.toml and docs are derived from them.
struct AlignOptions {
  // What is trained, on what, how
  std::filesystem::path model;
  std::vector<std::filesystem::path> data;
  std::filesystem::path output;
  std::string objective = "diffusion-dpo";
  std::optional<double> beta;        // in the convention of the method's public code
  std::optional<double> kappa;       // the coefficient of D (or s) in the logit, directly
  std::string objective_args;        // "k=v,..."
  std::optional<double> auto_kappa;  // kappa follows the run so that the gradient factor stays near this

  std::string adapter = "lora";  // lora or full
  int64_t rank = 8;
  double lora_alpha = 0;  // 0: equal to the rank
  std::vector<std::string> target_modules = {"to_q", "to_k", "to_v", "to_out.0"};
  bool train_text_encoder = false;        // LoRA on the CLIP text encoders as well
  int64_t text_encoder_rank = 0;          // 0: rank
  double text_encoder_alpha = 0;          // 0: the text encoders' rank
  bool stream_weights = false;            // frozen weights of blocks stay in host memory
  std::string base_dtype;                 // int8 or fp8 of the frozen weights beside a LoRA; empty: that of the run
  std::string lora_format = "diffusers";  // diffusers or kohya

  std::string reference;                  // parse_reference; empty: what the objective and adapter ask for
  int64_t reference_draws = 0;            // of a cached reference: draws a group has; 0: a new one every epoch
  std::filesystem::path reference_model;  // a reference other than the starting weights
  std::filesystem::path init_lora;        // start from this adapter: it is the reference's too

  std::filesystem::path init_user_adapter;     // of objectives that know users: start from this adapter
  std::filesystem::path user_embeddings;       // the same: users' states made elsewhere, which stay as they are
  std::vector<std::filesystem::path> experts;  // LoRAs whose gate is trained

  losses::LossOptions loss;              // what can be added to every objective that can bear it
  std::string logit_weighting = "none";  // TimestepWeighting::parse: of the errors inside the link function
  std::string loss_weighting = "none";   // of each group's loss

  std::string timestep_sampling = "uniform";  // TimestepSampler::parse
  std::string timestep_range;                 // "LOW:HIGH", timesteps LOW .. HIGH-1; empty: all

  OnlineOptions online;

  // Optimisation
  int64_t steps = 0;                // optimizer steps; 0: from epochs
  double epochs = 1.0;              // passes over the training pairs, when steps is 0
  int64_t batch_size = 4;           // groups a micro-step
  int64_t accumulate = 1;           // micro-steps an optimizer step
  std::string optimizer = "adamw";  // parse_optimizer: adamw, adamw8bit or adafactor
  std::string optimizer_args;       // its own parameters, "k=v,..."
  double lr = 1e-5;
  std::string lr_schedule = "constant";
  int64_t warmup = 0;
  double max_grad_norm = 1.0;
  double weight_decay = 1e-2;
  double ema = 0;  // decay of the weight average; 0 for none. With it, the average is what is written
  bool gradient_checkpointing = false;
  double activation_memory_gb = 0;  // what blocks may keep; others are recomputed. 0: everything is kept
  bool cuda_graph = false;          // forward and backward passes are recorded and replayed

  // Preferences
  std::string score_name;  // the reward score that is taken; empty: the only one there is
  bool keep_ties = false;  // ties stay, with labels of one half
  std::string curriculum;  // Curriculum::parse: easy groups first

  // Pictures and captions
  int64_t resolution = 0;          // px, shorter side; 0: what the model was made for
  bool buckets = false;            // sizes of equal area instead of squares (data/buckets.h)
  int64_t bucket_reso_steps = 64;  // px
  int64_t min_bucket_reso = 0;     // px, a side; 0: half of the resolution
  int64_t max_bucket_reso = 0;     // px; 0: twice the resolution
  bool random_crop = false;
  bool no_hflip = false;
  double empty_prompt_rate = 0.2;
  std::string long_prompts = "truncate";  // or segments (text/prompt_encoder.h)
  double distilled_guidance = 3.5;        // that a model distilled under guidance (FLUX.1 dev) is told
  double max_bad = 0.01;                  // share of records that may be unreadable before the run stops
  int64_t workers = 1;                    // threads that read and decode pictures
  std::filesystem::path cache;            // folder of the latent cache; empty: OUTPUT/cache
  bool no_cache = false;

  // Keeping track
  int64_t log_every = 10;
  int64_t save_every = 500;
  int64_t keep = 2;    // checkpoints kept besides the best
  std::string resume;  // "", "auto" or a checkpoint folder
  int64_t eval_every = 100;
  std::filesystem::path eval_data;
  double eval_fraction = 0.05;        // share of prompts held out when there is no --eval-data
  std::filesystem::path dump_groups;  // Parquet table of the held-out groups, written with every measurement
  int64_t eval_groups = 64;           // at most so many held-out groups are measured; 0 turns evaluation off
  int64_t sample_every = 0;
  std::filesystem::path sample_prompts;
  int64_t sample_steps = 20;
  double sample_guidance = 7.5;
  std::filesystem::path trace;
  int64_t trace_steps = 1;

  // Guards
  double spike_factor = 8.0;   // skip a step whose gradient norm exceeds so many times the running median; 0 never
  int64_t skip_nonfinite = 0;  // so many non-finite steps are skipped before the run stops
  double alarm_drift = 0.03;   // over-optimisation alarm: held-out chosen error above the reference's by this share

  bool dry_run = false;
  uint64_t seed = 0;
  bool progress = true;
  std::string resolved_config;  // text of run.toml

  AdapterKind adapter_kind() const;  // that of --adapter, or the objective's own
  // --reference, or without it what suits: none for an objective that needs none, else the objective's own default,
  // else adapter-off for LoRA and a frozen copy otherwise. `objective` as with_needs_of the options.
  ReferenceSpec reference_spec(const losses::ObjectiveInfo& objective) const;
};

// "LoRA", "full" and so on, for messages.
const char* adapter_title(AdapterKind kind);

// Optimizer steps of the run: --steps, or what --epochs passes over `num_groups` groups take.
int64_t resolve_num_steps(const AlignOptions& options, int64_t num_groups);

// Checks everything that can be checked before anything is loaded, and names all problems in one usage error (an
// input error when all of them are missing files).
void validate(const AlignOptions& options);

}  // namespace prefusion::training
