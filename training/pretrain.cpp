#include "training/pretrain.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/json_config.h"
#include "core/logging.h"
#include "core/progress.h"
#include "core/rng.h"
#include "kernels/item_error/item_error.h"
#include "kernels/noise_and_target/noise_and_target.h"
#include "losses/timestep_weights.h"
#include "nn/layers.h"
#include "schedulers/noise_schedule.h"
#include "shapes/caption.h"
#include "shapes/dataset.h"
#include "text/clip_text_model.h"
#include "text/clip_tokenizer.h"
#include "text/word_tokenizer.h"
#include "training/checkpoint.h"
#include "training/ema.h"
#include "training/lr_schedule.h"
#include "training/metrics_log.h"
#include "training/optimizer.h"
#include "training/pretrain_vae.h"
#include "unet/denoiser.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

constexpr const char* kDenoiserStem = "diffusion_pytorch_model";
constexpr const char* kTextStem = "model";

// A word tokenizer over the captions' vocabulary; the text encoder's config takes its sizes from it.
void make_tokenizer(const fs::path& model) {
  const fs::path config_path = model / "text_encoder" / "config.json";
  Json config = read_json(config_path);
  text::write_word_tokenizer(model / "tokenizer", shapes::vocabulary(),
                             config.value("max_position_embeddings", int64_t{77}));
  const auto tokenizer = text::ClipTokenizer::load(model / "tokenizer");
  config["bos_token_id"] = tokenizer.bos_token_id();
  config["eos_token_id"] = tokenizer.eos_token_id();
  config["pad_token_id"] = tokenizer.pad_token_id();
  config["vocab_size"] = read_json(model / "tokenizer" / "vocab.json").size();
  write_file(config_path, config.dump(2) + "\n");
}

// The folder being built: a copy of the configs, to which weights are added stage by stage.
void copy_configs(const PretrainOptions& options) {
  check_input(fs::exists(options.model / "model_index.json"), options.model.string(),
              ": expected a diffusers-layout folder with model_index.json and the components' configs");
  make_folder(options.output);
  for (const auto& entry : fs::directory_iterator(options.model)) {
    const std::string name = entry.path().filename().string();
    if (name == "checkpoints" || name == "metrics.jsonl") continue;  // of the run that made the model
    std::error_code error;
    fs::copy(entry.path(), options.output / name, fs::copy_options::recursive | fs::copy_options::skip_existing, error);
    check_run(!error, options.output.string(), ": cannot copy ", entry.path().string(), " (", error.message(), ")");
  }
  if (!fs::exists(options.output / "tokenizer")) make_tokenizer(options.output);
}

bool has_weights(const fs::path& component, const std::string& stem) {
  return fs::exists(component / (stem + ".safetensors")) || fs::exists(component / (stem + ".fp16.safetensors"));
}

TensorMap stored(TensorMap weights, const PretrainOptions& options) {
  for (auto& [name, tensor] : weights) {
    if (at::isFloatingType(tensor.scalar_type())) tensor = tensor.to(options.stored_dtype);
  }
  return weights;
}

// The VAE of the output folder, trained first when it has no weights yet.
std::shared_ptr<vae::AutoencoderKL> prepare_vae(const PretrainOptions& options, at::Device device) {
  const fs::path folder = options.output / "vae";
  if (!has_weights(folder, kDenoiserStem)) {
    check_usage(options.vae_steps > 0, folder.string(), ": has no weights and --vae-steps is 0");
    Json config = read_json(folder / "config.json");
    auto vae = vae::make_autoencoder(config.dump(), (folder / "config.json").string());
    nn::init_weights(*vae, make_torch_generator(options.seed));
    vae->to(device);
    pretrain_vae(*vae, options, device);
    config["scaling_factor"] = measure_scaling_factor(*vae, options, device);
    write_file(folder / "config.json", config.dump(2) + "\n");
    write_safetensors(folder / concat(kDenoiserStem, ".safetensors"), stored(nn::tensor_map(*vae), options),
                      {{"format", "pt"}});
  }
  return vae::load_autoencoder(folder, at::kFloat, device);
}

// The training set as the denoiser sees it: posterior of each picture, token ids of each caption.
struct EncodedScenes {
  at::Tensor mean, std;  // [N, C, h, w], unscaled
  at::Tensor token_ids;  // [N, L]
};

EncodedScenes encode_scenes(vae::AutoencoderKL& vae, const text::ClipTokenizer& tokenizer,
                            const PretrainOptions& options, at::Device device) {
  at::NoGradGuard no_grad;
  constexpr int64_t kBatch = 64;
  std::vector<at::Tensor> means, stds, ids;
  Progress progress("encoding scenes", options.num_scenes, "scene", options.progress);
  for (int64_t begin = 0; begin < options.num_scenes; begin += kBatch) {
    throw_if_interrupted();
    const int64_t count = std::min(kBatch, options.num_scenes - begin);
    // Scenes of the denoiser come from a seed of their own, so that they are not those the VAE was fitted to.
    const auto scenes = shapes::scene_batch(options.seed + 2, begin / kBatch, count);
    const auto posterior = vae.encode(scenes.pixel_values.to(device));
    means.push_back(posterior.mean);
    stds.push_back(posterior.std);
    ids.push_back(tokenizer.tokenize_batch(scenes.captions).to(device));
    progress.update(begin + count);
  }
  return {at::cat(means), at::cat(stds), at::cat(ids)};
}

// Denoiser and text encoder, trained together; parameters carry their component's name.
struct Networks {
  std::shared_ptr<unet::Denoiser> denoiser;
  std::shared_ptr<text::ClipTextModel> text_encoder;

  std::vector<NamedTensor> parameters() const {
    std::vector<NamedTensor> all;
    for (const auto& [name, tensor] : nn::named_tensors(*denoiser)) all.push_back({"unet." + name, tensor});
    for (const auto& [name, tensor] : nn::named_tensors(*text_encoder)) {
      if (at::isFloatingType(tensor.scalar_type())) all.push_back({"text_encoder." + name, tensor});
    }
    return all;
  }
};

Networks prepare_networks(const PretrainOptions& options, at::Device device) {
  Networks networks;
  const fs::path unet = options.output / "unet";
  const fs::path text = options.output / "text_encoder";
  at::Generator generator = make_torch_generator(options.seed);
  if (has_weights(unet, kDenoiserStem)) {
    networks.denoiser = unet::load_denoiser(unet, at::kFloat, device);
  } else {
    networks.denoiser = unet::make_denoiser(read_file(unet / "config.json"), (unet / "config.json").string());
    nn::init_weights(*networks.denoiser, generator);
  }
  if (has_weights(text, kTextStem)) {
    networks.text_encoder = text::load_clip_text_model(text, at::kFloat, device);
  } else {
    networks.text_encoder =
        text::make_clip_text_model(read_file(text / "config.json"), (text / "config.json").string());
    nn::init_weights(*networks.text_encoder, generator);
  }
  networks.denoiser->to(device);
  networks.text_encoder->to(device);
  return networks;
}

// min(SNR, gamma) / SNR for an epsilon target, / (SNR + 1) for v ("Efficient Diffusion Training via Min-SNR", arXiv
// 2303.09556); losses/timestep_weights.h has that of flow.
at::Tensor min_snr_weight(const schedulers::NoiseSchedule& schedule, const at::Tensor& timesteps, double gamma) {
  if (gamma <= 0) return at::ones_like(timesteps, at::kFloat);
  const at::Tensor snr = schedule.snr(timesteps);
  const at::Tensor capped = snr.clamp_max(gamma);
  switch (schedule.prediction_type()) {
    case PredictionType::kVPrediction: return capped / (snr + 1.0);
    case PredictionType::kSample: return capped;
    case PredictionType::kFlow: return losses::timestep_weight("min-snr", snr, PredictionType::kFlow, gamma);
    default: return capped / snr;
  }
}

class DenoiserPretraining {
 public:
  DenoiserPretraining(const PretrainOptions& options, at::Device device, Networks networks, EncodedScenes scenes,
                      const text::ClipTokenizer& tokenizer, double scaling_factor)
      : options_(options),
        device_(device),
        networks_(std::move(networks)),
        scenes_(std::move(scenes)),
        schedule_(schedulers::read_scheduler_config(options.output)),
        optimizer_(networks_.parameters(), {.lr = options.lr, .weight_decay = options.weight_decay}),
        ema_(optimizer_.parameters(), options.ema_decay),
        scaling_factor_(scaling_factor),
        empty_ids_(tokenizer.tokenize_batch({""}).to(device)) {}

  void run() {
    int64_t step = options_.resume ? restore() : 0;
    MetricsLog log(options_.output / "metrics.jsonl", step);
    Progress progress("denoiser", options_.steps, "step", options_.progress);
    progress.set_start(step);
    double running = 0;
    for (; step < options_.steps; ++step) {
      const double lr = options_.lr * lr_factor(LrScheduleKind::kCosine, step, options_.warmup, options_.steps);
      const at::Tensor loss = train_step(step, lr);
      if ((step + 1) % options_.log_every == 0) {
        running = loss.item<double>();
        check_run(std::isfinite(running), "pretraining: the loss is not finite at step ", step + 1);
        log.write(step + 1, {{"loss", running}, {"lr", lr}});
        progress.update(step + 1, concat("loss ", running));
      }
      const bool interrupted = pending_interrupt() != 0;
      const bool stops = step + 1 == options_.stop_after;
      if (interrupted || stops || ((step + 1) % options_.save_every == 0)) save(step + 1);
      throw_if_interrupted();
      if (stops) return;
    }
    write_model();
  }

 private:
  at::Tensor train_step(int64_t step, double lr) {
    const int64_t batch = options_.batch_size;
    const int64_t count = scenes_.mean.size(0);
    std::vector<int64_t> index, timesteps, streams;
    std::vector<uint8_t> drops;
    for (int64_t i = 0; i < batch; ++i) {
      const DrawKey key{options_.seed, static_cast<uint64_t>(step * batch + i), 0};
      index.push_back(CounterRng(key, RandomPurpose::kShuffle).below(count));
      timesteps.push_back(CounterRng(key, RandomPurpose::kTimestep).below(schedule_.num_train_timesteps()));
      streams.push_back(static_cast<int64_t>(random_stream(key, RandomPurpose::kNoise)));
      drops.push_back(CounterRng(key, RandomPurpose::kCaptionDrop).uniform() < options_.empty_prompt_rate);
    }
    const auto on_device = [&](const at::Tensor& tensor) { return tensor.to(device_); };
    const at::Tensor rows = on_device(at::tensor(index, at::kLong));
    const at::Tensor t = on_device(at::tensor(timesteps, at::kLong));
    const DrawKey posterior_key{options_.seed, static_cast<uint64_t>(step), 0};
    const at::Tensor mean = scenes_.mean.index_select(0, rows);
    const at::Tensor draw = on_device(philox_randn(mean.sizes(), posterior_key, RandomPurpose::kPosterior));
    const at::Tensor latents = (mean + scenes_.std.index_select(0, rows) * draw) * scaling_factor_;
    const at::Tensor drop = on_device(at::tensor(drops, at::kByte)).to(at::kBool).unsqueeze(1);
    const at::Tensor ids = at::where(drop, empty_ids_, scenes_.token_ids.index_select(0, rows));

    const auto noisy = kernels::noise_and_target(latents.unsqueeze(1), on_device(at::tensor(streams, at::kLong)),
                                                 options_.seed, schedule_.signal_scale(t).unsqueeze(1),
                                                 schedule_.noise_scale(t).unsqueeze(1), schedule_.prediction_type());
    const at::Tensor states = networks_.text_encoder->forward(ids).last_hidden_state;
    const at::Tensor prediction =
        networks_.denoiser->forward(noisy.noisy_latents.squeeze(1), schedule_.denoiser_timesteps(t), {states});
    const at::Tensor error = kernels::item_error(prediction, noisy.target.squeeze(1));
    const at::Tensor loss = (error * min_snr_weight(schedule_, t, options_.snr_gamma)).mean();
    loss.backward();
    optimizer_.step(lr, {.gradient_factor = clip_factor(optimizer_.grad_norm(), options_.max_grad_norm)});
    optimizer_.zero_grad();
    ema_.update(optimizer_.parameters());
    return loss.detach();
  }

  void save(int64_t step) {
    save_checkpoint(options_.output,
                    {.step = step,
                     .tensors = {{"optimizer", optimizer_.state()}, {"ema", ema_.state()}},
                     .state = {{"seed", options_.seed}, {"steps", options_.steps}}},
                    /*keep=*/1);
  }

  int64_t restore() {
    const auto path = latest_checkpoint(options_.output);
    if (!path) return 0;
    const Checkpoint checkpoint = load_checkpoint(*path);
    optimizer_.load_state(checkpoint.tensors.at("optimizer"), path->string());
    ema_.load_state(checkpoint.tensors.at("ema"), path->string());
    log_info("resuming at step ", checkpoint.step);
    return checkpoint.step;
  }

  void write_model() {
    TensorMap unet, text;
    for (const auto& [name, average] : ema_.averages()) {
      if (name.starts_with("unet.")) {
        unet[name.substr(5)] = average;
      } else {
        text[name.substr(std::string("text_encoder.").size())] = average;
      }
    }
    write_safetensors(options_.output / "unet" / concat(kDenoiserStem, ".safetensors"), stored(unet, options_),
                      {{"format", "pt"}});
    write_safetensors(options_.output / "text_encoder" / concat(kTextStem, ".safetensors"), stored(text, options_),
                      {{"format", "pt"}});
  }

  const PretrainOptions& options_;
  at::Device device_;
  Networks networks_;
  EncodedScenes scenes_;
  schedulers::NoiseSchedule schedule_;
  AdamW optimizer_;
  Ema ema_;
  double scaling_factor_;
  at::Tensor empty_ids_;
};

}  // namespace

void pretrain(const PretrainOptions& options, at::Device device) {
  copy_configs(options);
  const auto vae = prepare_vae(options, device);
  const auto tokenizer = text::ClipTokenizer::load(options.output / "tokenizer");
  EncodedScenes scenes = encode_scenes(*vae, tokenizer, options, device);
  const double scaling_factor = vae->to_latents(at::ones({1})).item<double>();
  DenoiserPretraining training(options, device, prepare_networks(options, device), std::move(scenes), tokenizer,
                               scaling_factor);
  training.run();
}

}  // namespace prefusion::training
