// ImageReward against transformers' BLIP, MPS against its description over transformers' CLIP, Denscore against
// transformers' CLIP, live.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/json_config.h"
#include "core/safetensors.h"
#include "images/image_decode.h"
#include "reward_models/scorer.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"
#include "text/sentences.h"

namespace prefusion::reward_models {
namespace {

namespace fs = std::filesystem;
using tests::error_message;
using tests::mentions;
using tests::near;

class CrossRewardReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = tests::run_reference_script("make_cross_rewards.py");
    prompts_ = read_json(root_ / "prompts.json").get<std::vector<std::string>>();
    captions_ = read_json(root_ / "captions.json").get<std::vector<std::string>>();
    for (size_t i = 0; i < prompts_.size(); ++i) {
      pictures_.push_back(images::decode_image(read_file(root_ / "pictures" / (std::to_string(i) + ".png"))));
    }
  }

  static TensorMap expected(const std::string& kind, const std::string& name) {
    return read_safetensors(root_ / kind / (name + ".safetensors"));
  }
  static std::string spec(const std::string& kind, const std::string& name) {
    return kind + "=" + (root_ / kind / name).string();
  }
  static at::Tensor scores(const std::vector<std::string>& rewards, const std::vector<std::string>& arguments = {},
                           const ScorerOptions& options = {}) {
    return Scorer(parse_reward_specs(rewards, arguments), options).score_pictures(pictures_, prompts_);
  }
  // The largest difference of a reward's scores from the expected ones.
  static double error(const at::Tensor& found, const at::Tensor& wanted) {
    return (found.squeeze(1) - wanted).abs().max().item<double>();
  }
  static std::string failure(const std::string& reward, const std::vector<std::string>& arguments = {},
                             ErrorClass error_class = ErrorClass::kInput) {
    return error_message(error_class, [&] { Scorer(parse_reward_specs({reward}, arguments), {}); });
  }
  // Of the picture towers whose width does not tell.
  static std::string heads(const std::string& name) { return name == "plain" || name == "pickled" ? "2" : "3"; }
  // A copy of a model that a test may damage.
  static void copy_model(const std::string& kind, const std::string& name, const fs::path& target) {
    fs::copy(root_ / kind / name, target, fs::copy_options::recursive);
  }

  static fs::path root_;
  static std::vector<std::string> prompts_;
  static std::vector<std::string> captions_;
  static std::vector<at::Tensor> pictures_;
};
fs::path CrossRewardReference::root_;
std::vector<std::string> CrossRewardReference::prompts_;
std::vector<std::string> CrossRewardReference::captions_;
std::vector<at::Tensor> CrossRewardReference::pictures_;

TEST_F(CrossRewardReference, ImageRewardSeesThePictureAsBlip) {
  for (const char* name : {"plain", "odd", "deep"}) {
    SCOPED_TRACE(name);
    const Scorer scorer(parse_reward_specs({spec("imagereward", name)}, {"imagereward.heads=" + heads(name)}), {});
    const auto& tower = scorer.model(0).tower();
    std::vector<at::Tensor> prepared;
    for (const at::Tensor& picture : pictures_) prepared.push_back(tower->prepare(images::rgb_picture(picture)));
    const TensorMap reference = expected("imagereward", name);
    EXPECT_TRUE(near(at::stack(prepared), reference.at("pixels"), 1e-6));
    EXPECT_TRUE(near(tower->features(prepared), reference.at("features"), 1e-5));
  }
}

TEST_F(CrossRewardReference, ImageRewardScoresAsThePublicModel) {
  for (const char* name : {"plain", "odd", "deep", "pickled"}) {
    SCOPED_TRACE(name);
    const at::Tensor found = scores({spec("imagereward", name)}, {"imagereward.heads=" + heads(name)});
    EXPECT_LT(error(found, expected("imagereward", name).at("scores")), 1e-4);
  }
}

TEST_F(CrossRewardReference, BlipsHeadsAre64ChannelsWide) {
  EXPECT_TRUE(at::equal(scores({spec("imagereward", "plain")}),
                        scores({spec("imagereward", "plain")}, {"imagereward.heads=2"})));
  EXPECT_GT(error(scores({spec("imagereward", "plain")}, {"imagereward.heads=4"}),
                  expected("imagereward", "plain").at("scores")),
            1e-3);
  EXPECT_TRUE(mentions(failure(spec("imagereward", "odd"), {}, ErrorClass::kUsage), "heads=N"));
  EXPECT_TRUE(mentions(failure(spec("imagereward", "odd"), {"imagereward.heads=4"}, ErrorClass::kUsage), "4 heads"));
}

TEST_F(CrossRewardReference, ImageRewardSaysWhatIsCutOff) {
  const at::Tensor counts = expected("imagereward", "plain").at("num_tokens");
  const Scorer scorer(parse_reward_specs({spec("imagereward", "plain")}, {}), {});
  for (size_t i = 0; i < prompts_.size(); ++i) {
    const PromptFacts facts = scorer.model(0).prompt_facts(prompts_[i]);
    EXPECT_EQ(facts.num_tokens, counts[static_cast<int64_t>(i)].item<int64_t>());
    EXPECT_EQ(facts.num_truncated > 0, i == 5);
  }
}

TEST_F(CrossRewardReference, ImageRewardTakesFilesAndTokenizersFromElsewhere) {
  const tests::TempDir copy;
  copy_model("imagereward", "plain", copy / "model");
  fs::rename(copy / "model" / "vocab.txt", copy / "vocab.txt");
  const std::string reward = "imagereward=" + (copy / "model" / "ImageReward.safetensors").string();
  EXPECT_TRUE(mentions(failure(reward), "bert-base-uncased"));
  const at::Tensor found = scores({reward}, {"imagereward.tokenizer=" + copy.path().string()});
  EXPECT_TRUE(at::equal(found, scores({spec("imagereward", "plain")})));
}

TEST_F(CrossRewardReference, ImageRewardFilesThatDoNotFitAreRefused) {
  const tests::TempDir copy;
  const fs::path folder = copy / "model";
  copy_model("imagereward", "plain", folder);
  const std::string reward = "imagereward=" + folder.string();
  const fs::path file = folder / "ImageReward.safetensors";
  const TensorMap sound = read_safetensors(root_ / "imagereward" / "plain" / "ImageReward.safetensors");
  const auto with = [&](auto change) {
    TensorMap weights = sound;
    change(weights);
    write_safetensors(file, weights);
    return failure(reward);
  };
  const std::string gaps = with([](TensorMap& weights) {
    weights.erase("mlp.layers.4.bias");
    weights.erase("blip.text_encoder.encoder.layer.1.crossattention.self.key.weight");
    weights.erase("blip.visual_encoder.blocks.1.attn.qkv.bias");
    weights["blip.surprise"] = at::zeros({1});
  });
  for (const char* name :
       {"mlp.layers.4.bias", "layer.1.crossattention.self.key.weight", "blocks.1.attn.qkv.bias", "blip.surprise"}) {
    EXPECT_TRUE(mentions(gaps, name));
  }
  EXPECT_TRUE(mentions(with([](TensorMap& weights) {
                         weights["mlp.layers.2.weight"] = at::zeros({20, 23});
                       }),
                       "mlp.layers.2"));
  EXPECT_TRUE(mentions(with([](TensorMap& weights) {
                         weights["blip.visual_encoder.pos_embed"] = at::zeros({1, 16, 128});
                       }),
                       "pos_embed"));
  EXPECT_TRUE(mentions(with([](TensorMap& weights) {
                         weights.clear();
                         weights["x"] = at::zeros({1});
                       }),
                       "patch_embed.proj.weight"));
  write_safetensors(file, sound);
  const std::string config = read_file(folder / "med_config.json");
  Json changed = parse_json(config, "config");
  changed["add_cross_attention"] = false;
  write_file(folder / "med_config.json", changed.dump());
  EXPECT_TRUE(mentions(failure(reward), "add_cross_attention"));
  changed["add_cross_attention"] = true;
  changed["novelty"] = 1;
  write_file(folder / "med_config.json", changed.dump());
  EXPECT_TRUE(mentions(failure(reward), "novelty"));
  fs::remove(folder / "med_config.json");
  EXPECT_TRUE(mentions(failure(reward), "med_config.json"));
  write_file(folder / "med_config.json", config);
  write_file(folder / "vocab.txt", read_file(folder / "vocab.txt") + "one\nmore\n");
  EXPECT_TRUE(mentions(failure(reward), "embeddings"));
  fs::remove(file);
  EXPECT_TRUE(mentions(failure(reward), "ImageReward.safetensors"));
}

TEST_F(CrossRewardReference, MpsScoresUnderItsCondition) {
  for (const char* name : {"plain", "odd"}) {
    SCOPED_TRACE(name);
    const TensorMap reference = expected("mps", name);
    EXPECT_LT(error(scores({spec("mps", name)}), reference.at("scores_overall")), 1e-3);
    EXPECT_LT(error(scores({spec("mps", name)}, {"mps.threshold=0.01"}), reference.at("scores_loose")), 1e-3);
    EXPECT_LT(error(scores({spec("mps", name)}, {"mps.condition=style, tone"}), reference.at("scores_style")), 1e-3);
    EXPECT_LT(error(scores({spec("mps", name)}, {"mps.condition=semantic"}), reference.at("scores_semantic")), 1e-3);
  }
}

TEST_F(CrossRewardReference, MpsWeightsMayLieBesideTheClipFolder) {
  const std::string reward = "mps=" + (root_ / "mps" / "beside_weights.safetensors").string();
  const at::Tensor found = scores({reward}, {"mps.clip=" + (root_ / "mps" / "beside").string()});
  EXPECT_LT(error(found, expected("mps", "beside").at("scores_overall")), 1e-3);
}

TEST_F(CrossRewardReference, MpsArgumentsAreChecked) {
  const auto usage = [](const std::string& argument) {
    return failure(spec("mps", "plain"), {argument}, ErrorClass::kUsage);
  };
  EXPECT_TRUE(mentions(usage("mps.condition=aesthetic"), "aesthetics"));
  EXPECT_TRUE(mentions(usage("mps.threshold=1"), "below 1"));
  EXPECT_TRUE(mentions(usage("mps.treshold=0.1"), "treshold"));
}

TEST_F(CrossRewardReference, MpsFilesThatDoNotFitAreRefused) {
  const tests::TempDir copy;
  const fs::path folder = copy / "model";
  copy_model("mps", "plain", folder);
  const TensorMap sound = read_safetensors(root_ / "mps" / "plain" / "model.safetensors");
  const auto with = [&](auto change) {
    TensorMap weights = sound;
    change(weights);
    write_safetensors(folder / "model.safetensors", weights);
    return failure("mps=" + folder.string());
  };
  const std::string gaps = with([](TensorMap& weights) {
    weights.erase("cross_model.layers.1.0.fn.to_out.weight");
    weights.erase("cross_model.layers.0.1.fn.attn_out.weight");
  });
  EXPECT_TRUE(mentions(gaps, "layers.1.0.fn.to_out.weight"));
  EXPECT_TRUE(mentions(gaps, "layers.0.1.fn.attn_out.weight"));
  EXPECT_TRUE(mentions(with([](TensorMap& weights) { weights["extra.weight"] = at::zeros({1}); }), "extra.weight"));
  EXPECT_TRUE(mentions(with([](TensorMap& weights) { weights.erase("model.logit_scale"); }), "logit_scale"));
  EXPECT_TRUE(mentions(with([](TensorMap& weights) {
                         std::erase_if(weights, [](const auto& w) { return w.first.starts_with("cross_model."); });
                       }),
                       "to_q"));
  EXPECT_TRUE(mentions(with([](TensorMap& weights) {
                         weights["cross_model.layers.0.1.fn.ff_out.1.weight"] = at::zeros({20, 41});
                       }),
                       "[20, 41]"));
}

TEST_F(CrossRewardReference, DenscoreAveragesTheSentences) {
  for (const char* name : {"plain", "odd"}) {
    SCOPED_TRACE(name);
    const TensorMap reference = expected("denscore", name);
    Scorer scorer(parse_reward_specs({spec("denscore", name)}, {}), {});
    EXPECT_LT(error(scorer.score_pictures(pictures_, captions_), reference.at("scores")), 1e-5);
    for (size_t i = 0; i < captions_.size(); ++i) {
      EXPECT_EQ(static_cast<int64_t>(text::split_caption(captions_[i]).size()),
                reference.at("counts")[static_cast<int64_t>(i)].item<int64_t>());
    }
  }
}

TEST_F(CrossRewardReference, BatchesDoNotChangeScores) {
  const std::vector<std::string> rewards = {spec("imagereward", "plain"), spec("mps", "plain"),
                                            spec("denscore", "plain")};
  const at::Tensor together = scores(rewards, {}, {.batch_size = 6});
  const at::Tensor single = scores(rewards, {}, {.batch_size = 1});
  const at::Tensor by_four = scores(rewards, {}, {.batch_size = 4});
  for (int64_t reward = 0; reward < 3; ++reward) {
    EXPECT_TRUE(near(single.select(1, reward), together.select(1, reward), 1e-5));
    EXPECT_TRUE(near(by_four.select(1, reward), together.select(1, reward), 1e-5));
  }
}

// What lets a killed run go on byte for byte.
TEST_F(CrossRewardReference, PromptsOnTheCpuDoNotDependOnTheirCompany) {
  const c10::InferenceMode no_gradients;
  const std::string clip = (root_ / "denscore" / "odd").string();
  const std::vector<std::string> rewards = {spec("imagereward", "plain"), spec("mps", "plain"),
                                            spec("denscore", "plain"), "pickscore=" + clip};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scorer scorer(parse_reward_specs(rewards, {}), {.dtype = dtype});
    for (size_t i = 0; i < rewards.size(); ++i) {
      auto& model = const_cast<RewardModel&>(scorer.model(i));
      const at::Tensor together = model.prompt_features(prompts_);
      for (size_t p = 0; p < prompts_.size(); ++p) {
        EXPECT_TRUE(at::equal(model.prompt_features({prompts_[p]})[0], together[static_cast<int64_t>(p)]))
            << rewards[i] << ", " << c10::toString(dtype) << ": " << prompts_[p];
      }
    }
  }
}

TEST_F(CrossRewardReference, HalfPrecisionTowersStayClose) {
  const std::vector<std::string> rewards = {spec("imagereward", "plain"), spec("mps", "plain"),
                                            spec("denscore", "plain")};
  const at::Tensor difference = (scores(rewards, {}, {.dtype = at::kBFloat16}) - scores(rewards)).abs();
  EXPECT_GT(difference.max().item<double>(), 0);
  const std::vector<double> allowed = {0.3, 10, 0.03};  // of scores within about 3, 100 and 1
  for (size_t i = 0; i < allowed.size(); ++i) {
    EXPECT_LT(difference.select(1, static_cast<int64_t>(i)).max().item<double>(), allowed[i]) << rewards[i];
  }
}

// What fine-tuning on a reward's gradient asks of it.
TEST_F(CrossRewardReference, GradientsReachThePixels) {
  const std::vector<std::string> rewards = {spec("imagereward", "plain"), spec("mps", "plain"),
                                            spec("denscore", "plain"),
                                            "pickscore=" + (root_ / "denscore" / "plain").string()};
  const Scorer scorer(parse_reward_specs(rewards, {}), {});
  for (size_t i = 0; i < rewards.size(); ++i) {
    SCOPED_TRACE(rewards[i]);
    auto& model = const_cast<RewardModel&>(scorer.model(i));
    const at::Tensor prompt = model.prompt_features({prompts_[0]}).detach();
    const at::Tensor pixels = model.tower()->prepare(images::rgb_picture(pictures_[0])).requires_grad_();
    const auto score = [&](const at::Tensor& x) { return model.score(model.tower()->features({x}), prompt); };
    score(pixels).sum().backward();
    ASSERT_TRUE(pixels.grad().defined());
    // Along the gradient itself the score rises by its norm.
    const double norm = pixels.grad().norm().item<double>();
    const at::NoGradGuard no_gradients;
    const at::Tensor step = pixels.grad() / norm * 1e-2;
    const double rise = (score(pixels + step) - score(pixels - step)).item<double>() / 2e-2;
    EXPECT_GT(norm, 1e-4);
    EXPECT_NEAR(rise / norm, 1, 0.02);
  }
}

}  // namespace
}  // namespace prefusion::reward_models
