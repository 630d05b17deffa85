#include "reward_models/image_reward.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/device.h"
#include "core/error.h"
#include "reward_models/affine_head.h"
#include "reward_models/blip_vision_model.h"
#include "reward_models/image_reward_files.h"
#include "reward_models/picture_preparation.h"
#include "text/bert_model.h"
#include "text/word_piece_tokenizer.h"

namespace prefusion::reward_models {
namespace {

// Mean and deviation of the published model's outputs over its training data.
constexpr double kMean = 0.16717362830052426;
constexpr double kStd = 1.0333394966054072;
constexpr int64_t kMaxTokens = 35;  // [CLS] and [SEP] included; longer prompts are cut

// The network below its head, under the public names.
class BlipImpl : public torch::nn::Module {
 public:
  BlipImpl(const BlipVisionConfig& vision, const text::BertConfig& text, const std::string& where) {
    visual_encoder = register_module("visual_encoder", std::make_shared<BlipVisionModel>(vision));
    text_encoder = register_module("text_encoder", std::make_shared<text::BertModel>(text, where));
  }
  std::shared_ptr<BlipVisionModel> visual_encoder;
  std::shared_ptr<text::BertModel> text_encoder;
};

// Features are all tokens [N, T, W], in the dtype of the tower.
class BlipTower : public PictureTower {
 public:
  BlipTower(std::shared_ptr<BlipVisionModel> model, const std::string& name) : model_(std::move(model)) {
    const int64_t size = model_->config().image_size;
    preparation_ = {
        .recipe = PreparationRecipe::kPillow, .shortest_edge = size, .crop_height = size, .crop_width = size};
    preparation_key_ = preparation_.key();
    key_ = name + ' ' + preparation_key_;
  }

  const std::string& key() const override { return key_; }
  const std::string& preparation_key() const override { return preparation_key_; }
  at::Tensor prepare(const images::Picture& picture) const override { return prepare_picture(picture, preparation_); }
  at::Tensor features(const std::vector<at::Tensor>& prepared) override {
    const at::Tensor weight = model_->parameters().front();
    return model_->forward(to_device(at::stack(prepared), weight.device()).to(weight.scalar_type()));
  }

 private:
  std::shared_ptr<BlipVisionModel> model_;
  PicturePreparation preparation_;
  std::string preparation_key_;
  std::string key_;
};

class ImageReward : public RewardModel {
 public:
  ImageReward(std::shared_ptr<PictureTower> tower, std::shared_ptr<text::BertModel> model,
              text::WordPieceTokenizer tokenizer, AffineHead head)
      : tower_(std::move(tower)), model_(std::move(model)), tokenizer_(std::move(tokenizer)), head_(std::move(head)) {
    max_tokens_ = std::min(kMaxTokens, model_->config().max_position_embeddings);
  }

  const std::shared_ptr<PictureTower>& tower() const override { return tower_; }

  // int64 [P, 1 + max_tokens]: how many tokens count, then the tokens, padded. The text is read together with the
  // picture, so that there is nothing else to prepare.
  at::Tensor prompt_features(const std::vector<std::string>& prompts) override {
    at::Tensor rows =
        at::full({static_cast<int64_t>(prompts.size()), 1 + max_tokens_}, tokenizer_.pad_token_id(), at::kLong);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const Tokens tokens = tokenize(prompts[i]);
      int64_t* row = rows[static_cast<int64_t>(i)].data_ptr<int64_t>();
      *row = static_cast<int64_t>(tokens.ids.size());
      std::ranges::copy(tokens.ids, row + 1);
    }
    return rows.to(model_->parameters().front().device());
  }

  PromptFacts prompt_facts(const std::string& prompt) const override {
    const Tokens tokens = tokenize(prompt);
    return {.num_tokens = static_cast<int64_t>(tokens.ids.size()), .num_truncated = tokens.num_truncated};
  }

  at::Tensor score(const at::Tensor& picture_features, const at::Tensor& prompt_features) override {
    if (picture_features.size(0) == 0) return at::empty({0}, at::kFloat);
    const at::Tensor lengths = prompt_features.slice(1, 0, 1);  // [N, 1]
    const int64_t longest = lengths.max().item<int64_t>();      // what is padding in every row is not computed
    const at::Tensor ids = prompt_features.slice(1, 1, 1 + longest);
    const at::Tensor is_token = at::arange(longest, lengths.options()).lt(lengths);
    const at::Tensor states = model_->forward(ids, is_token, picture_features);  // [N, L, D]
    return head_(states.select(1, 0)).cpu();
  }

 private:
  struct Tokens {
    std::vector<int64_t> ids;
    int64_t num_truncated = 0;
  };

  Tokens tokenize(const std::string& prompt) const {
    const std::vector<int64_t> all = tokenizer_.encode(prompt);
    const auto kept = std::min(all.size(), static_cast<size_t>(max_tokens_ - 2));
    Tokens tokens{.ids = {tokenizer_.cls_token_id()}};
    tokens.ids.insert(tokens.ids.end(), all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept));
    tokens.ids.push_back(tokenizer_.sep_token_id());
    tokens.num_truncated = static_cast<int64_t>(all.size() - kept);
    return tokens;
  }

  std::shared_ptr<PictureTower> tower_;
  std::shared_ptr<text::BertModel> model_;
  text::WordPieceTokenizer tokenizer_;
  AffineHead head_;
  int64_t max_tokens_ = kMaxTokens;
};

}  // namespace

std::unique_ptr<RewardModel> open_image_reward(const RewardSpec& spec, const RewardContext& context) {
  RewardOptions options(spec);
  const std::filesystem::path tokenizer_folder = options.text("tokenizer", "");
  const auto num_heads = static_cast<int64_t>(options.number("heads", 0));
  options.finish();
  const ImageRewardFiles files = read_image_reward_files(spec.path, tokenizer_folder);

  const BlipVisionConfig vision = blip_vision_config_of(files.part("blip.visual_encoder."), num_heads, files.where);
  text::BertConfig text = files.text;
  text.encoder_width = vision.width;
  auto network = std::make_shared<BlipImpl>(vision, text, files.where);
  const AffineHead head = files.load(*network, context.dtype, context.device);
  network->eval();
  check_input(head.weight.size(0) == text.hidden_size, files.where, ": the head takes ", head.weight.size(0),
              " features, but the text encoder makes ", text.hidden_size);

  text::WordPieceTokenizer tokenizer = text::WordPieceTokenizer::load(files.tokenizer_folder, {"[DEC]", "[ENC]"});
  check_input(tokenizer.num_ids() <= text.vocab_size, files.tokenizer_folder.string(), ": the tokenizer has ids up to ",
              tokenizer.num_ids() - 1, ", but the text encoder has only ", text.vocab_size, " embeddings");
  auto tower = std::make_shared<BlipTower>(
      network->visual_encoder, concat("blip ", files.where, ' ', vision.num_heads, ' ', c10::toString(context.dtype)));
  return std::make_unique<ImageReward>(std::move(tower), network->text_encoder, std::move(tokenizer),
                                       head.standardized(kMean, kStd));
}

}  // namespace prefusion::reward_models
