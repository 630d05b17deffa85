#include "tools/score_batch.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "core/error.h"
#include "images/image_decode.h"

namespace prefusion::tools {
namespace {

// Identical pictures share their prepared tensors, by which the scorer knows them.
void share_pictures(std::vector<ScoreJob>& jobs) {
  std::unordered_map<ContentHash, const ScoreJob*, ContentHashHasher> seen;
  for (ScoreJob& job : jobs) {
    if (!job.problem.empty()) continue;
    const auto [found, is_new] = seen.emplace(job.hash, &job);
    if (!is_new) job.prepared = found->second->prepared;
  }
}

std::vector<size_t> sound_jobs(const std::vector<ScoreJob>& jobs) {
  std::vector<size_t> sound;
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i].problem.empty()) sound.push_back(i);
  }
  return sound;
}

at::Tensor score_sound(reward_models::Scorer& scorer, const std::vector<ScoreJob>& jobs,
                       const std::vector<size_t>& sound) {
  std::vector<reward_models::PreparedPicture> pictures;
  std::vector<std::string> prompts;
  for (const size_t i : sound) {
    pictures.push_back(jobs[i].prepared);
    prompts.push_back(jobs[i].prompt.value_or(""));
  }
  return scorer.score(pictures, prompts);
}

// Jobs that need a prompt and have none.
void find_missing_prompts(const reward_models::Scorer& scorer, std::vector<ScoreJob>& jobs) {
  if (!scorer.uses_prompts()) return;
  for (ScoreJob& job : jobs) {
    if (job.problem.empty() && !job.prompt)
      job.problem = "there is no prompt (docs/scoring.md says where it is looked for)";
  }
}

// Jobs whose prompts a reward refuses; returns whether there are any.
bool find_refused_prompts(const reward_models::Scorer& scorer, std::vector<ScoreJob>& jobs) {
  bool has_refused = false;
  for (ScoreJob& job : jobs) {
    if (!job.problem.empty()) continue;
    try {
      const std::string prompt = job.prompt.value_or("");
      scorer.check_prompts({prompt});
      for (size_t i = 0; i < scorer.columns().size(); ++i) scorer.model(i).prompt_facts(prompt);  // takes it to tokens
    } catch (const Error& error) {
      job.problem = error.what();
      has_refused = true;
    }
  }
  return has_refused;
}

// fp64 [N, R] of the jobs without a problem. A batch is scored as a whole; only when that fails are its prompts looked
// at one by one.
at::Tensor score_batch(reward_models::Scorer& scorer, std::vector<ScoreJob>& jobs) {
  try {
    return score_sound(scorer, jobs, sound_jobs(jobs));
  } catch (const Error&) {
    if (!find_refused_prompts(scorer, jobs)) throw;
  }
  return score_sound(scorer, jobs, sound_jobs(jobs));
}

// Row and item, and of each reward that reads prompts what became of this one.
std::vector<std::optional<int64_t>> details_of(const reward_models::Scorer& scorer, const ScoreJob& job) {
  std::vector<std::optional<int64_t>> details = {job.row, job.item};
  for (size_t i = 0; i < scorer.columns().size(); ++i) {
    if (!scorer.model(i).uses_prompts()) continue;
    if (!job.problem.empty()) {
      details.insert(details.end(), 2, std::nullopt);
      continue;
    }
    const reward_models::PromptFacts facts = scorer.model(i).prompt_facts(job.prompt.value_or(""));
    details.push_back(facts.num_tokens);
    details.push_back(facts.num_truncated > 0 ? 1 : 0);
  }
  return details;
}

void take_scores(const reward_models::Scorer& scorer, const at::Tensor& scores, ScoreRow& row) {
  const auto values = scores.accessor<double, 1>();
  for (int64_t i = 0; i < values.size(0); ++i) {
    if (!std::isfinite(values[i])) {
      row.error = concat("the score of ", scorer.columns()[static_cast<size_t>(i)], " is not finite");
      row.scores.assign(row.scores.size(), std::nullopt);
      return;
    }
    row.scores[static_cast<size_t>(i)] = static_cast<float>(values[i]);
  }
}

}  // namespace

void prepare_job(const std::string& encoded, const reward_models::Scorer& scorer, const images::ImageLimits& limits,
                 ScoreJob& job) {
  try {
    const c10::InferenceMode no_gradients;
    job.hash = hash_content(encoded);
    job.prepared = scorer.prepare(images::decode_picture(encoded, limits));
  } catch (const Error& error) {
    job.problem = error.what();
  } catch (const c10::Error& error) {
    job.problem = error.what_without_backtrace();
  }
}

void use_one_thread_here() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const int num_threads = at::get_num_threads();
  at::set_num_threads(1);
  // That also set what new threads begin with, and MKL's number for all; a thread that ends puts both back.
  std::thread([num_threads] { at::set_num_threads(num_threads); }).join();
}

ScoreLayout score_layout(const reward_models::Scorer& scorer, bool details) {
  ScoreLayout layout{.rewards = scorer.columns()};
  if (!details) return layout;
  layout.details = {{.name = "row"}, {.name = "item"}};
  for (size_t i = 0; i < scorer.columns().size(); ++i) {
    if (!scorer.model(i).uses_prompts()) continue;
    layout.details.push_back({.name = scorer.columns()[i] + ".tokens"});
    layout.details.push_back({.name = scorer.columns()[i] + ".truncated", .is_flag = true});
  }
  return layout;
}

std::vector<ScoreRow> score_jobs(reward_models::Scorer& scorer, std::vector<ScoreJob> jobs, const ScoreLayout& layout) {
  share_pictures(jobs);
  find_missing_prompts(scorer, jobs);
  const at::Tensor scores = score_batch(scorer, jobs);
  std::vector<ScoreRow> rows;
  int64_t next_score = 0;
  for (const ScoreJob& job : jobs) {
    ScoreRow row{.image = job.image,
                 .prompt = job.prompt,
                 .scores = std::vector<std::optional<float>>(layout.rewards.size()),
                 .error = job.problem};
    if (!layout.details.empty()) row.details = details_of(scorer, job);
    if (job.problem.empty()) take_scores(scorer, scores[next_score++], row);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace prefusion::tools
