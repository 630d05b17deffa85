#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shapes/judge.h"

namespace prefusion::training {

// One thing a judge measures of a picture.
struct JudgeAxis {
  std::string name;
  bool is_share = false;  // values are 0 or 1 and the mean is a share
  bool higher_is_better = true;
  // Where set, of two pictures the one wins on this axis whose value is larger by more than this.
  std::optional<double> margin;
};

// Measures pictures against their prompts and says which of two is the better one. Reward models become judges with a
// single axis; the shapes world has several.
class PictureJudge {
 public:
  virtual ~PictureJudge() = default;

  // In the order of the values that score() gives; the first is the most important one.
  virtual const std::vector<JudgeAxis>& axes() const = 0;

  // Usage error when pictures of this prompt cannot be judged, so that it is known before any is made.
  virtual void check_prompt(const std::string& prompt) const = 0;

  // A value an axis of a picture, uint8 [H, W, 3] RGB.
  virtual std::vector<double> score(const at::Tensor& image, const std::string& prompt) const = 0;
  // The same of many pictures, each under its prompt.
  virtual std::vector<std::vector<double>> score_all(const std::vector<at::Tensor>& images,
                                                     const std::vector<std::string>& prompts) const;

  virtual shapes::Verdict compare(std::span<const double> first, std::span<const double> second) const = 0;

  // How much better the first is, to put pairs in order; its sign agrees with compare().
  virtual double advantage(std::span<const double> first, std::span<const double> second) const = 0;

  // A picture's worth as one number, the difference of two being their advantage: what online objectives raise.
  virtual double reward(std::span<const double> scores) const = 0;

  // The kind of prompt, for a breakdown of the first axis; empty for none.
  virtual std::string prompt_kind(const std::string& prompt) const = 0;
};

// The judge of the shapes world (shapes/judge.h). Axes: correct, taste, background, edge_cleanliness, stray_blobs.
std::unique_ptr<PictureJudge> make_shapes_judge(double taste_margin = shapes::kDefaultTasteMargin);

struct JudgeOptions {
  std::vector<std::string> rewards = {"shapes"};  // --reward: KIND or KIND=PATH (reward_models/reward_spec.h)
  std::vector<std::string> arguments;             // --reward-args
  // Difference of scores up to which two pictures tie; absent: kDefaultTasteMargin for shapes, 0 for reward models.
  std::optional<double> margin;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
};

// What is wrong with the options, before anything is loaded: usage error.
void check_judge(const JudgeOptions& options);

// The shapes judge for {"shapes"}. Else reward models, an axis each; of two pictures the one wins that more of them
// prefer. Usage error as check_judge, input error when a model cannot be loaded.
std::unique_ptr<PictureJudge> make_judge(const JudgeOptions& options);

}  // namespace prefusion::training
