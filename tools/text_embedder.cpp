#include "tools/text_embedder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <functional>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "data/filters/text_diversity.h"
#include "reward_models/clip_model.h"
#include "text/clip_tokenizer.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

constexpr size_t kBatch = 64;

using Embed = std::function<at::Tensor(const std::vector<std::string>&)>;

// The text encoder of a diffusers model: there is no projection, so the state at the end token stands for the text.
Embed diffusers_encoder(const fs::path& folder, const TextEmbedderOptions& options) {
  auto model = text::load_clip_text_model(folder / "text_encoder", options.dtype, options.device);
  const int64_t length = model->config().max_position_embeddings;
  const auto tokenizer = std::make_shared<text::ClipTokenizer>(text::ClipTokenizer::load(folder / "tokenizer", length));
  return [=](const std::vector<std::string>& texts) {
    std::vector<at::Tensor> pooled;
    for (const std::string& each : texts) {
      std::vector<int64_t> ids = {tokenizer->bos_token_id()};
      const std::vector<int64_t> tokens = tokenizer->encode(each);
      const auto room = static_cast<size_t>(std::min(length, tokenizer->model_max_length()) - 2);
      ids.insert(ids.end(), tokens.begin(), tokens.begin() + static_cast<int64_t>(std::min(room, tokens.size())));
      ids.push_back(tokenizer->eos_token_id());
      pooled.push_back(model->forward(at::tensor(ids, at::kLong).unsqueeze(0).to(options.device)).pooled);
    }
    return at::cat(pooled);
  };
}

Embed open_encoder(const TextEmbedderOptions& options) {
  const fs::path& folder = options.text_encoder;
  if (fs::is_directory(folder / "text_encoder")) return diffusers_encoder(folder, options);
  check_input(fs::exists(folder / "config.json"), folder.string(),
              ": no text encoder; expected a CLIP folder with config.json, or a diffusers model with text_encoder/");
  const auto clip = reward_models::open_clip_folder(folder, {.dtype = options.dtype, .device = options.device});
  return [encoder = clip.prompts()](const std::vector<std::string>& texts) { return encoder->encode(texts); };
}

}  // namespace

at::Tensor embed_texts(const std::vector<std::string>& texts, const TextEmbedderOptions& options) {
  if (options.text_encoder.empty()) return data::filters::hashed_ngrams(texts);
  at::NoGradGuard no_grad;
  const Embed embed = open_encoder(options);
  std::vector<at::Tensor> parts;
  Progress progress("texts", static_cast<int64_t>(texts.size()), "text", options.progress);
  for (size_t begin = 0; begin < texts.size(); begin += kBatch) {
    throw_if_interrupted();
    const size_t end = std::min(begin + kBatch, texts.size());
    const std::vector<std::string> batch(texts.begin() + static_cast<int64_t>(begin),
                                         texts.begin() + static_cast<int64_t>(end));
    parts.push_back(embed(batch).to(at::kCPU, at::kFloat));
    progress.update(static_cast<int64_t>(end));
  }
  const at::Tensor rows = at::cat(parts);
  return rows / rows.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-12);
}

}  // namespace prefusion::tools
