#include "tools/preference_options.h"

namespace prefusion::tools {

void add_record_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Data";
  app.add_option("--data", o.data,
                 "Pick-a-Pic Parquet files, JSONL manifests, or folders of either or of chosen/ and rejected/")
      ->group(group);
  app.add_option("--score-name", o.score_name,
                 "Reward score of the data to take, by name; rows without it are dropped. Default: the only one")
      ->group(group);
  app.add_option(
         "--curriculum", o.curriculum,
         "Easy groups first: margin:CHUNKS (by the gap of scores or labels), margin:CHUNKS:MIN_GAP to leave out "
         "groups of smaller margin, or hardness:CHUNKS[:TIMESTEPS] (by how the starting model ranks a group at "
         "TIMESTEPS timesteps, 4 by default)")
      ->group(group);
  app.add_flag("--keep-ties", o.keep_ties, "Keep ties, with labels of one half, for objectives with soft labels")
      ->group(group);
  app.add_option("--resolution", o.resolution,
                 "Pixels of the shorter side, then centre crop (with --buckets, of the square of equal area), and both "
                 "sides of an online objective's samples; 0 takes the model's own")
      ->capture_default_str()
      ->group(group);
  app.add_flag(
         "--buckets", o.buckets,
         "Aspect-ratio buckets: a group's pictures are cut to the size of about --resolution squared pixels that is "
         "nearest to their shape, and a batch is of one size (docs/models.md)")
      ->group(group);
  app.add_option("--bucket-reso-steps", o.bucket_reso_steps, "Sides of buckets are multiples of so many pixels")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--min-bucket-reso", o.min_bucket_reso, "Pixels of a bucket's side at least; 0: half of --resolution")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--max-bucket-reso", o.max_bucket_reso, "Pixels of a bucket's side at most; 0: twice --resolution")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_flag("--no-hflip", o.no_hflip, "Never mirror pictures")->group(group);
  app.add_option("--empty-prompt-rate", o.empty_prompt_rate, "Share of prompts replaced by the empty one")
      ->capture_default_str()
      ->group(group);
  app.add_option("--long-prompts", o.long_prompts,
                 "truncate: prompts are cut off at what CLIP reads, 75 tokens; segments: every prompt is encoded "
                 "sentence by sentence, in 240 states (LongAlign; SD 1.x, 2.x, SDXL; docs/generate.md)")
      ->check(CLI::IsMember({"truncate", "segments"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--distilled-guidance", o.distilled_guidance,
                 "Guidance scale a model distilled under guidance (FLUX.1 dev) is told in training")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--max-bad", o.max_bad, "Share of records that may be unreadable before the run stops")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
  app.add_option("--workers", o.workers, "Threads that read and decode pictures")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
}

void add_held_out_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Held-out data";
  app.add_option("--eval-data", o.eval_data, "Held-out preference data; by default a share of the prompts of --data")
      ->group(group);
  app.add_option("--eval-fraction", o.eval_fraction, "That share of prompts")
      ->check(CLI::Range(0.0, 0.5))
      ->capture_default_str()
      ->group(group);
  app.add_option("--eval-groups", o.eval_groups, "Held-out groups measured at most; 0 holds nothing out")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
}

void add_timestep_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Timesteps";
  app.add_option("--timestep-sampling", o.timestep_sampling,
                 "uniform, logit-normal[:MEAN,STD], mode[:SCALE] or list:T1,T2,... (larger timesteps are "
                 "noisier; those of a flow model are sigma * 1000)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--timestep-range", o.timestep_range,
                 "LOW:HIGH trains on timesteps LOW to HIGH-1 only; a LoRA acts there alone")
      ->group(group);
}

void add_start_options(CLI::App& app, training::AlignOptions& o) {
  const std::string group = "Start and reference";
  app.add_option("--reference-model", o.reference_model, "Model folder of a reference other than the starting weights")
      ->group(group);
  app.add_option("--init-lora", o.init_lora,
                 "LoRA file or folder to start from, with its rank and layers; the reference has it as well")
      ->group(group);
}

}  // namespace prefusion::tools
