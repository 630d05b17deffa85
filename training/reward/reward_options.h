#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "data/bad_limit.h"

namespace prefusion::training {

// Which weights of a reward model are trained.
enum class RewardTraining {
  kHead,  // the head on frozen towers, whose features are encoded once; a cosine head is CLIP's two projections
  kLast,  // that and the last layers of both towers
  kFull,  // everything
  kUsers  // a pal head's mixture weights of users it does not know yet
};

struct TrainRewardOptions {
  std::filesystem::path model;        // CLIP folder, or with kUsers a folder of an earlier pal run
  std::filesystem::path from_config;  // CLIP folder without weights; one of the two
  std::vector<std::filesystem::path> data;
  std::filesystem::path eval_data;  // for validation; empty: a share of the prompts of `data`
  std::filesystem::path test_data;  // empty: another share of them
  std::filesystem::path output;

  std::string loss = "pickscore";
  std::string loss_args;
  std::string head = "cosine";
  std::string head_args;
  std::vector<std::string> aspects;
  std::string score_name;
  std::string groups = "auto";  // pairs, lists; auto takes what the loss is made for
  int64_t list_size = 0;
  bool drop_ties = false;
  bool no_prompt_weights = false;
  double in_batch_negatives = 0;
  std::string train = "head";

  int64_t steps = 0;  // 0 goes by epochs
  int64_t epochs = 10;
  int64_t batch_size = 64;
  int64_t accumulate = 1;
  double lr = 0;  // 0: default_lr()
  std::string lr_schedule = "cosine";
  int64_t warmup = 0;
  double weight_decay = 0;
  double max_grad_norm = 1;
  bool gradient_checkpointing = false;

  double eval_fraction = 0.1;
  double test_fraction = 0.1;
  int64_t eval_every = 100;
  int64_t patience = 0;
  int64_t log_every = 10;
  int64_t save_every = 200;
  int64_t keep = 1;
  bool resume = false;

  std::filesystem::path cache;  // empty: OUTPUT/cache
  double max_bad = 0.01;
  int64_t workers = 2;
  uint64_t seed = 0;
  bool progress = true;
  std::string resolved_config;

  RewardTraining training() const;
  int64_t num_last_layers() const;  // of kLast
  double default_lr() const;
  double base_lr() const { return lr > 0 ? lr : default_lr(); }
  std::filesystem::path cache_folder() const { return cache.empty() ? output / "cache" : cache; }
};

// "k=v,k=v" over the numbers in `known`. Usage error, naming `flag`, for another key or no number.
std::map<std::string, double> parse_numbers(const std::string& text, std::map<std::string, double> known,
                                            const std::string& flag);

// Usage error that names what does not fit together.
void validate(const TrainRewardOptions& options);

}  // namespace prefusion::training
