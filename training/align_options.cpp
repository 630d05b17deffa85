#include "training/align_options.h"

#include "core/error.h"
#include "losses/online/online_objective.h"
#include "losses/registry.h"
#include "nn/frozen_weights.h"
#include "training/curriculum.h"
#include "training/make_optimizer.h"
#include "training/online/online_options.h"
#include "training/own_samples.h"
#include "training/timestep_weighting.h"
#include "training/users.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

// Null for a name that is none: another check says so.
const losses::ObjectiveInfo* find_listed(const std::string& name) {
  for (const losses::ObjectiveInfo* info : losses::listed_objectives()) {
    if (info->name == name) return info;
  }
  return nullptr;
}

}  // namespace

AdapterKind AlignOptions::adapter_kind() const {
  if (adapter == "full") return AdapterKind::kFull;
  check_usage(adapter == "lora", "--adapter ", adapter, ": expected lora or full");
  const losses::ObjectiveInfo* info = find_listed(objective);
  if (info == nullptr) return AdapterKind::kLora;
  return info->needs_users ? AdapterKind::kUsers : info->fuses_experts ? AdapterKind::kGate : AdapterKind::kLora;
}

const char* adapter_title(AdapterKind kind) {
  switch (kind) {
    case AdapterKind::kLora: return "LoRA";
    case AdapterKind::kFull: return "full";
    case AdapterKind::kUsers: return "user adapter";
    case AdapterKind::kGate: return "gate";
  }
  return "?";
}

ReferenceSpec AlignOptions::reference_spec(const losses::ObjectiveInfo& objective) const {
  if (!reference.empty()) return parse_reference(reference);
  if (!objective.needs_reference) return {.kind = ReferenceKind::kNone};
  const bool has_default = !objective.default_reference.empty() && reference_model.empty();
  if (has_default) return parse_reference(objective.default_reference);
  // A LoRA run has its reference at hand: the same network with the adapter switched off.
  const bool off_is_exact = adapter_kind() != AdapterKind::kFull && reference_model.empty();
  return {.kind = off_is_exact ? ReferenceKind::kAdapterOff : ReferenceKind::kFrozen};
}

int64_t resolve_num_steps(const AlignOptions& options, int64_t num_groups) {
  if (options.steps > 0) return options.steps;
  const double groups = options.epochs * static_cast<double>(num_groups);
  const auto per_step = static_cast<double>(options.batch_size * options.accumulate);
  return std::max<int64_t>(1, static_cast<int64_t>(groups / per_step));
}

namespace {

// Collects problems instead of stopping at the first.
class Problems {
 public:
  void check(bool condition, const std::string& problem) {
    if (condition) return;
    add(problem);
    has_usage_ = true;
  }
  void check_exists(const std::string& flag, const fs::path& path, const char* what) {
    if (!path.empty() && !fs::exists(path)) add(concat(flag, " ", path.string(), ": no such ", what));
  }
  template <typename Function>
  void attempt(Function&& function) {
    try {
      function();
    } catch (const Error& error) {
      check(false, error.what());
    }
  }
  // Files that are missing are an input error when everything said about them is right.
  void throw_if_any() const {
    if (!text_.empty()) throw Error(has_usage_ ? ErrorClass::kUsage : ErrorClass::kInput, text_);
  }

 private:
  void add(const std::string& problem) { text_ += (text_.empty() ? "" : "; ") + problem; }

  std::string text_;
  bool has_usage_ = false;
};

// Some objectives train an adapter of their own.
void check_own_adapter(const AlignOptions& o, const losses::ObjectiveInfo& objective) {
  check_usage(objective.fuses_experts || o.experts.empty(), "--objective ", o.objective,
              " fuses no experts: leave --experts out, or choose tlpo");
  check_usage(!objective.fuses_experts || o.experts.size() > 1, "--objective ", o.objective,
              " fuses LoRAs: --experts A.safetensors,B.safetensors,... must name two or more");
  if (!objective.needs_users && !objective.fuses_experts) return;
  const auto refuse = [&](bool is_given, const char* flag) {
    check_usage(!is_given, "--objective ", o.objective, " trains an adapter of its own: leave ", flag, " out");
  };
  const AlignOptions defaults;
  refuse(o.adapter != defaults.adapter, "--adapter");
  refuse(o.rank != defaults.rank, "--rank");
  refuse(o.lora_alpha != defaults.lora_alpha, "--lora-alpha");
  refuse(o.target_modules != defaults.target_modules, "--target-modules");
  refuse(o.lora_format != defaults.lora_format, "--lora-format");
  refuse(!o.init_lora.empty(), "--init-lora");
}

void check_auto_kappa(const AlignOptions& o, const losses::ObjectiveInfo& objective) {
  if (!o.auto_kappa) return;
  check_usage(*o.auto_kappa > 0 && *o.auto_kappa < 0.5, "--auto-kappa ", *o.auto_kappa,
              ": expected a gradient factor between 0 and 0.5");
  const bool compares = objective.data == losses::DataKind::kPair || objective.data == losses::DataKind::kList;
  check_usage(objective.has_kappa() && compares, "--auto-kappa: objective ", objective.name,
              objective.has_kappa() ? " compares no items of a group" : " has no kappa");
}

void check_reference(const AlignOptions& o, const losses::ObjectiveInfo& objective) {
  const ReferenceSpec spec = o.reference_spec(objective);
  check_usage(!objective.needs_reference || spec.kind != ReferenceKind::kNone, "--objective ", o.objective,
              o.loss.anchor_weight > 0 ? " with --anchor-weight" : "",
              " needs a reference: leave --reference out, or name another one than none");
  check_usage(spec.kind != ReferenceKind::kAdapterOff || o.adapter == "lora",
              "--reference adapter-off needs --adapter lora; use --reference frozen");
  check_usage(o.reference_model.empty() || spec.kind == ReferenceKind::kFrozen || spec.kind == ReferenceKind::kCached,
              "--reference-model needs --reference frozen or cached");
  check_usage(o.reference_draws >= 0, "--reference-draws must not be negative");
  check_usage(o.reference_draws == 0 || spec.kind == ReferenceKind::kCached,
              "--reference-draws says how many draws a cached reference has: it needs --reference cached");
  if (spec.kind != ReferenceKind::kCached) return;
  check_usage(!o.no_cache, "--reference cached keeps the reference's errors in the cache: leave --no-cache out");
  check_usage(!objective.needs_drift, "--reference cached keeps errors, but --objective ", o.objective,
              " (or --anchor-weight) needs the reference's predictions; use --reference frozen or adapter-off");
  check_usage(objective.latent_source == losses::LatentSource::kForwardNoise, "--reference cached: --objective ",
              o.objective, " inverts latents with the policy, which moves; use --reference frozen or adapter-off");
}

// References that are no fixed network would have to bring text encoders of their own.
void check_text_encoder(const AlignOptions& o, const losses::ObjectiveInfo& objective) {
  check_usage(o.text_encoder_rank >= 0 && o.text_encoder_alpha >= 0,
              "--text-encoder-rank and --text-encoder-alpha must not be negative");
  check_usage(o.train_text_encoder || (o.text_encoder_rank == 0 && o.text_encoder_alpha == 0),
              "--text-encoder-rank and --text-encoder-alpha need --train-text-encoder");
  if (!o.train_text_encoder) return;
  check_usage(o.adapter_kind() == AdapterKind::kLora, "--train-text-encoder trains a LoRA beside the denoiser's: it ",
              "needs --adapter lora, and an objective that trains no adapter of its own");
  check_usage(online_objective_of(o) == nullptr, "--train-text-encoder: --objective ", o.objective,
              " samples with text states that stay; train on data");
  check_usage(o.init_lora.empty(), "--train-text-encoder begins with new adapters: leave --init-lora out");
  const ReferenceSpec spec = o.reference_spec(objective);
  const bool stays = spec.kind == ReferenceKind::kNone || spec.kind == ReferenceKind::kAdapterOff ||
                     spec.kind == ReferenceKind::kFrozen;
  check_usage(stays && o.reference_model.empty(), "--train-text-encoder: the reference has the text encoders of the ",
              "start; use --reference adapter-off, frozen or none, without --reference-model");
}

void check_base_dtype(const AlignOptions& o, const losses::ObjectiveInfo& objective) {
  if (o.base_dtype.empty()) return;
  nn::parse_frozen_dtype(o.base_dtype, "--base-dtype");
  check_usage(o.adapter_kind() == AdapterKind::kLora, "--base-dtype keeps weights in bytes, which cannot be trained: ",
              "it needs --adapter lora, and an objective that trains no adapter of its own");
  const bool has_copy = o.reference_spec(objective).kind == ReferenceKind::kFrozen && o.reference_model.empty();
  check_usage(!has_copy, "--base-dtype: --reference frozen would be a network of other weights than the policy began ",
              "with; use --reference adapter-off");
}

void check_stream_weights(const AlignOptions& o, const losses::ObjectiveInfo& objective) {
  if (!o.stream_weights) return;
  check_usage(o.adapter_kind() != AdapterKind::kFull, "--stream-weights keeps frozen weights in host memory, and with ",
              "--adapter full all are trained; it needs --adapter lora");
  const bool has_copy = o.reference_spec(objective).kind == ReferenceKind::kFrozen && o.reference_model.empty();
  check_usage(!has_copy, "--stream-weights: --reference frozen would be the same network a second time; use ",
              "--reference adapter-off");
}

// A recorded step reads its inputs where they are, and is of the launches it was recorded with.
void check_cuda_graph(const AlignOptions& o) {
  if (!o.cuda_graph) return;
  const std::string what = "--cuda-graph replays the launches of one step: ";
  check_usage(online_objective_of(o) == nullptr, what, "--objective ", o.objective,
              " samples and learns in steps of several kinds; leave it out");
  const AdapterKind kind = o.adapter_kind();
  check_usage(kind == AdapterKind::kLora || kind == AdapterKind::kFull, what, "--objective ", o.objective, " trains a ",
              adapter_title(kind), " whose states are made outside of them; leave it out");
  check_usage(!o.train_text_encoder, what, "--train-text-encoder has prompts of any length; leave one out");
  check_usage(!o.stream_weights, what, "--stream-weights moves weights; leave one out");
  check_usage(!o.auto_kappa, what, "--auto-kappa changes the objective; leave one out");
}

// An optimizer with a rate of its own leaves nothing to the flags that set one.
void check_optimizer(const AlignOptions& o) {
  if (!parse_optimizer(o.optimizer, o.optimizer_args).has_own_rate()) return;
  const AlignOptions defaults;
  const auto refuse = [](bool is_given, const char* flag, const char* instead) {
    check_usage(!is_given, "--optimizer-args relative_step=1: the optimizer has a rate of its own; leave ", flag,
                " out", instead);
  };
  refuse(o.lr != defaults.lr, "--lr", "");
  refuse(o.lr_schedule != defaults.lr_schedule, "--lr-schedule", "");
  refuse(o.warmup != defaults.warmup, "--warmup", ", or say warmup_init=1");
}

// A tie has no chosen item: only an objective that reads the labels can learn from it.
void check_ties(const AlignOptions& o, const losses::Objective& objective) {
  const bool takes_the_first =
      objective.info.data == losses::DataKind::kSingle ||
      (objective.info.data == losses::DataKind::kPair && !objective.labels && !o.loss.soft_labels);
  check_usage(!o.keep_ties || !takes_the_first, "--keep-ties: objective ", o.objective,
              " takes the first item of every pair for the chosen one, of ties as well",
              objective.info.data == losses::DataKind::kPair ? "; add --soft-labels, or leave --keep-ties out"
                                                             : "; leave --keep-ties out");
}

void check_curriculum(const AlignOptions& o, const losses::ObjectiveInfo& objective) {
  if (!Curriculum::parse(o.curriculum).is_by_hardness()) return;
  const bool compares = objective.data == losses::DataKind::kPair || objective.data == losses::DataKind::kList;
  check_usage(compares, "--curriculum ", o.curriculum, ": objective ", o.objective,
              " sees single pictures, of which none is better than another; it needs pairs or lists");
  check_usage(!o.no_cache, "--curriculum ", o.curriculum,
              " keeps the model's errors in the cache: leave --no-cache out");
}

void check_dump(const AlignOptions& o, Problems& problems) {
  if (o.dump_groups.empty()) return;
  problems.check(
      o.eval_every > 0 && o.eval_groups > 0,
      "--dump-groups writes the held-out groups that are measured: --eval-every and --eval-groups must not be 0");
  problems.check(o.dump_groups.extension() == ".parquet",
                 concat("--dump-groups ", o.dump_groups.string(), ": expected a name that ends in .parquet"));
}

void check_buckets(const AlignOptions& o, Problems& problems) {
  const AlignOptions defaults;
  const auto positive = [&](int64_t value, const char* flag) {
    problems.check(value >= 0, concat(flag, " must not be negative"));
  };
  positive(o.min_bucket_reso, "--min-bucket-reso");
  positive(o.max_bucket_reso, "--max-bucket-reso");
  problems.check(o.bucket_reso_steps > 0, "--bucket-reso-steps must be positive");
  const bool says_more = o.bucket_reso_steps != defaults.bucket_reso_steps ||
                         o.min_bucket_reso != defaults.min_bucket_reso || o.max_bucket_reso != defaults.max_bucket_reso;
  problems.check(o.buckets || !says_more,
                 "--bucket-reso-steps, --min-bucket-reso and --max-bucket-reso need --buckets");
}

void check_online(const AlignOptions& o, const losses::OnlineObjective& objective, Problems& problems) {
  const OnlineOptions& online = o.online;
  const std::string what = concat("--objective ", o.objective, " trains on the policy's own samples: ");
  problems.check(!online.prompts.empty(), what + "--prompts FILE is required");
  problems.check_exists("--prompts", online.prompts, "file");
  problems.check(o.data.empty(), what + "leave --data out");
  problems.check(o.steps > 0, what + "--steps must say how many optimizer steps");
  problems.check(online.prompts_per_round > 0, "--prompts-per-round must be positive");
  problems.check(online.sampling_steps > 0, "--online-steps must be positive");
  problems.check(online.window >= 0, "--sde-window must not be negative");
  problems.check(online.inner_epochs > 0, "--inner-epochs must be positive");
  problems.check(o.reference != "cached", what + "--reference cached knows no samples ahead; use another reference");
  const auto refuse = [&](bool is_given, const char* flags) {
    problems.check(!is_given, what + flags + " is for objectives on data; leave it out");
  };
  const AlignOptions defaults;
  refuse(!o.eval_data.empty(), "--eval-data");
  refuse(o.distilled_guidance != defaults.distilled_guidance, "--distilled-guidance (--online-guidance is its scale)");
  if (!std::holds_alternative<losses::GroupObjective>(objective.group_loss)) {
    refuse(o.loss != defaults.loss, "an addition to the objective (--sft-weight, --loser-weight, ...)");
    refuse(o.logit_weighting != defaults.logit_weighting, "--logit-weighting");
    refuse(o.loss_weighting != defaults.loss_weighting, "--loss-weighting");
    refuse(o.timestep_sampling != defaults.timestep_sampling, "--timestep-sampling");
    refuse(!o.timestep_range.empty(), "--timestep-range");
    refuse(o.empty_prompt_rate != defaults.empty_prompt_rate, "--empty-prompt-rate");
  }
  refuse(o.auto_kappa.has_value(), "--auto-kappa");
  refuse(!o.curriculum.empty(), "--curriculum");
  refuse(!o.score_name.empty(), "--score-name");
  refuse(o.keep_ties, "--keep-ties");
  refuse(o.buckets, "--buckets");
  refuse(!o.dump_groups.empty(), "--dump-groups");
  for (const auto& problem : online_problems(o, objective)) problems.check(false, problem);
}

// Of the options of online objectives, those that play against themselves sample with two.
void check_not_online(const AlignOptions& o, Problems& problems) {
  OnlineOptions others = o.online;
  const losses::ObjectiveInfo* info = find_listed(o.objective);
  if (info != nullptr && samples_rejected(*info)) {
    const OnlineOptions defaults;
    problems.check(others.sampling_steps > 0, "--online-steps must be positive");
    others.sampling_steps = defaults.sampling_steps;
    others.guidance = defaults.guidance;
  }
  problems.check(others == OnlineOptions{},
                 concat("--objective ", o.objective,
                        " trains on given data: leave out --prompts, --reward and the other options "
                        "of training on the policy's own samples"));
}

}  // namespace

void validate(const AlignOptions& o) {
  Problems problems;
  problems.check(!o.model.empty(), "--model is required");
  problems.check(!o.output.empty() || o.dry_run, "--output is required");
  const losses::OnlineObjective* online = online_objective_of(o);
  const bool is_online = online != nullptr;
  problems.check(is_online || !o.data.empty() || o.dry_run, "--data is required");
  if (is_online) check_online(o, *online, problems);
  if (!is_online) check_not_online(o, problems);
  for (const auto& path : o.data) problems.check_exists("--data", path, "file or folder");
  problems.check_exists("--eval-data", o.eval_data, "file or folder");
  problems.check_exists("--model", o.model, "folder");
  problems.check_exists("--reference-model", o.reference_model, "folder");
  problems.check_exists("--init-lora", o.init_lora, "file or folder");
  problems.check_exists("--init-user-adapter", o.init_user_adapter, "file");
  problems.check_exists("--user-embeddings", o.user_embeddings, "file");
  for (const auto& expert : o.experts) problems.check_exists("--experts", expert, "file or folder");
  problems.check_exists("--sample-prompts", o.sample_prompts, "file");
  problems.check(o.batch_size > 0, "--batch-size must be positive");
  problems.check(o.accumulate > 0, "--accumulate must be positive");
  problems.check(o.steps > 0 || o.epochs > 0, "--steps or --epochs must be positive");
  problems.check(o.lr >= 0, "--lr must not be negative");
  problems.check(o.activation_memory_gb >= 0, "--activation-memory must not be negative");
  problems.check(!o.gradient_checkpointing || o.activation_memory_gb == 0,
                 "--gradient-checkpointing keeps no activations of blocks, so there is nothing for --activation-memory "
                 "to choose: leave one out");
  problems.check(o.rank > 0, "--rank must be positive");
  problems.check(o.ema >= 0 && o.ema < 1, "--ema must lie in [0, 1)");
  problems.check(o.empty_prompt_rate >= 0 && o.empty_prompt_rate <= 1, "--empty-prompt-rate must lie in [0, 1]");
  problems.check(o.resolution >= 0 && o.resolution % 8 == 0, "--resolution must be a multiple of 8");
  check_buckets(o, problems);
  problems.check(!o.random_crop || o.no_cache, "--random-crop needs --no-cache: a cached latent has its crop fixed");
  problems.check(o.no_cache || o.cache.empty() || !fs::is_regular_file(o.cache), "--cache expects a folder");
  problems.check(o.sample_every == 0 || !o.sample_prompts.empty(), "--sample-every needs --sample-prompts FILE");
  check_dump(o, problems);
  problems.attempt([&] { parse_lr_schedule(o.lr_schedule); });
  problems.attempt([&] { check_optimizer(o); });
  problems.attempt([&] { Curriculum::parse(o.curriculum); });
  problems.attempt([&] { TimestepWeighting::parse(o.logit_weighting, "--logit-weighting"); });
  problems.attempt([&] { TimestepWeighting::parse(o.loss_weighting, "--loss-weighting"); });
  problems.attempt([&] { o.adapter_kind(); });
  problems.attempt([&] {
    const losses::ObjectiveInfo& info = losses::find_objective_info(o.objective);
    losses::resolve_params(info, o.objective_args, o.beta, o.kappa);
    const losses::ObjectiveInfo needs = losses::with_needs_of(o.loss, info);
    check_own_adapter(o, info);
    check_user_options(o, info);
    check_reference(o, needs);
    check_text_encoder(o, needs);
    check_base_dtype(o, needs);
    check_stream_weights(o, needs);
    check_cuda_graph(o);
    if (losses::find_online_objective(o.objective) != nullptr) return;
    const auto& objective = losses::find_objective(o.objective);
    losses::check_loss_options(objective, o.loss);
    check_auto_kappa(o, info);
    check_ties(o, objective);
    check_curriculum(o, info);
  });
  problems.throw_if_any();
}

}  // namespace prefusion::training
