#include "tools/candidate_sampler.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "images/image_decode.h"
#include "images/image_encode.h"

namespace prefusion::tools {
namespace {

// Adds the seconds of a scope.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds), began_(Clock::now()) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(Clock::now() - began_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  Clock::time_point began_;
};

template <typename Number>
bool parse_number(const std::string& text, Number& number) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  return code == std::errc() && end == text.data() + text.size();
}

std::string encode(const at::Tensor& image, const CandidateOptions& options) {
  switch (options.format) {
    case StoredFormat::kPng: return images::encode_png(image);
    case StoredFormat::kJpeg: return images::encode_jpeg(image, {.quality = options.quality});
    case StoredFormat::kWebp: return images::encode_webp(image, static_cast<float>(options.quality));
  }
  fail_run("there is no such picture format");
}

}  // namespace

PruneRule parse_prune_rule(const std::string& text) {
  const size_t colon = text.find(':');
  PruneRule rule;
  const bool is_call = parse_number(text.substr(0, colon), rule.call) && rule.call >= 1;
  const bool is_share = colon == std::string::npos ||
                        (parse_number(text.substr(colon + 1), rule.share) && rule.share > 0 && rule.share < 1);
  check_usage(is_call && is_share, "--prune-at ", text,
              ": expected STEP or STEP:SHARE, a step of 1 or more and the share to drop between 0 and 1, as in 8:0.5");
  return rule;
}

// Pictures that share denoiser calls.
struct CandidateSampler::Batch {
  pipelines::SamplingRun run;
  std::vector<size_t> members;  // positions in the cohort of the run's rows
};

// Whole groups on their way together, so that the members of a group can be compared at the same call.
struct CandidateSampler::Cohort {
  std::span<const pipelines::ImageRequest> requests;
  std::vector<Batch> batches;
  std::vector<bool> is_alive;  // not dropped
  at::Tensor scores;           // [requests, R] of the last look at those that were looked at

  std::vector<std::string> prompts_of(const std::vector<size_t>& members) const {
    std::vector<std::string> prompts;
    for (const size_t member : members) prompts.push_back(requests[member].prompt);
    return prompts;
  }
  void set_scores(const std::vector<size_t>& members, const at::Tensor& found) {
    if (!scores.defined()) scores = at::zeros({static_cast<int64_t>(requests.size()), found.size(1)}, at::kDouble);
    for (size_t i = 0; i < members.size(); ++i) {
      scores[static_cast<int64_t>(members[i])].copy_(found[static_cast<int64_t>(i)]);
    }
  }
  at::Tensor scores_of(const std::vector<size_t>& members) const {
    const std::vector<int64_t> rows(members.begin(), members.end());
    return scores.index_select(0, at::tensor(rows, at::kLong));
  }
  // The members of the group that starts at `begin`; of the living alone, or all.
  std::vector<size_t> group(size_t begin, size_t size, bool is_living_alone) const {
    std::vector<size_t> members;
    for (size_t i = begin; i < begin + size; ++i) {
      if (!is_living_alone || is_alive[i]) members.push_back(i);
    }
    return members;
  }
};

CandidateSampler::CandidateSampler(pipelines::TextToImage& pipeline, reward_models::Scorer& scorer,
                                   const CandidateOptions& options)
    : pipeline_(pipeline), scorer_(scorer), options_(options) {
  pipeline.image_size(options.sampling);
  const auto scheduler = pipeline.make_scheduler(options.sampling);
  scheduler->set_timesteps(options.sampling.num_inference_steps);
  for (const PruneRule& rule : options.prunes) {
    check_usage(rule.call < scheduler->timesteps().size(), "--prune-at ", rule.call,
                ": the sampler calls the denoiser ", scheduler->timesteps().size(),
                " times; a step before the last is needed");
  }
}

std::vector<Candidate> CandidateSampler::sample(std::span<const pipelines::ImageRequest> requests,
                                                const std::function<void(size_t done)>& progress) {
  counts_ = {};
  scorer_.forget_prompts();  // so that scores are the same to the bit whatever was sampled before
  // Without pruning nothing is compared on the way, and batches need not hold whole groups.
  const auto batch_size = static_cast<size_t>(options_.batch_size);
  const size_t groups_at_once = std::max<size_t>(1, batch_size / options_.group_size);
  const size_t cohort_size = options_.prunes.empty() ? batch_size : groups_at_once * options_.group_size;
  std::vector<Candidate> candidates;
  for (size_t begin = 0; begin < requests.size(); begin += cohort_size) {
    const size_t count = std::min(cohort_size, requests.size() - begin);
    for (Candidate& candidate : sample_cohort(requests.subspan(begin, count), begin)) {
      candidates.push_back(std::move(candidate));
    }
    progress(begin + count);
  }
  return candidates;
}

std::vector<Candidate> CandidateSampler::sample_cohort(std::span<const pipelines::ImageRequest> requests,
                                                       size_t first) {
  Cohort cohort{
      .requests = requests, .batches = {}, .is_alive = std::vector<bool>(requests.size(), true), .scores = {}};
  const auto batch_size = static_cast<size_t>(options_.batch_size);
  for (size_t begin = 0; begin < requests.size(); begin += batch_size) {
    const auto part = requests.subspan(begin, std::min(batch_size, requests.size() - begin));
    std::vector<size_t> members(part.size());
    std::iota(members.begin(), members.end(), begin);
    cohort.batches.push_back(
        {pipelines::SamplingRun(pipeline_, {part.begin(), part.end()}, options_.sampling), std::move(members)});
  }
  const size_t num_calls = cohort.batches.front().run.num_calls();
  counts_.full_evaluations += static_cast<int64_t>(num_calls * requests.size());
  for (const PruneRule& rule : options_.prunes) {
    advance(cohort, rule.call);
    prune(cohort, rule.share);
  }
  advance(cohort, num_calls);
  std::vector<Candidate> candidates;
  finish(cohort, first, candidates);
  if (options_.checks_pruning) compare_winners(cohort);
  return candidates;
}

void CandidateSampler::advance(Cohort& cohort, size_t call) {
  const Stopwatch watch(counts_.sampling_seconds);
  for (Batch& batch : cohort.batches) {
    const auto alive = std::count_if(batch.members.begin(), batch.members.end(),
                                     [&](size_t member) { return cohort.is_alive[member]; });
    while (batch.run.position() < call) {
      batch.run.step();
      counts_.evaluations += alive;
    }
  }
}

void CandidateSampler::prune(Cohort& cohort, double share) {
  const Stopwatch watch(counts_.preview_seconds);
  for (Batch& batch : cohort.batches) {
    std::vector<size_t> alive;
    std::vector<int64_t> rows;
    for (size_t i = 0; i < batch.members.size(); ++i) {
      if (!cohort.is_alive[batch.members[i]]) continue;
      alive.push_back(batch.members[i]);
      rows.push_back(static_cast<int64_t>(i));
    }
    if (alive.empty()) continue;
    const at::Tensor clean = batch.run.predicted_clean();
    const at::Tensor images = pipeline_.decode(clean.index_select(0, at::tensor(rows, at::kLong).to(clean.device())));
    cohort.set_scores(alive, scorer_.score_pictures(images.unbind(0), cohort.prompts_of(alive)));
    counts_.previews += static_cast<int64_t>(alive.size());
  }
  for (size_t begin = 0; begin < cohort.requests.size(); begin += options_.group_size) {
    const std::vector<size_t> members = cohort.group(begin, options_.group_size, /*is_living_alone=*/true);
    const auto dropped = static_cast<size_t>(share * static_cast<double>(members.size()));
    const size_t count = std::max(options_.keep, members.size() - dropped);
    if (count >= members.size()) continue;
    for (const size_t member : members) cohort.is_alive[member] = false;
    for (const size_t place : options_.ranking.best(cohort.scores_of(members), count)) {
      cohort.is_alive[members[place]] = true;
    }
  }
  if (options_.checks_pruning) return;
  std::erase_if(cohort.batches, [&](Batch& batch) {
    std::vector<int64_t> rows;
    std::vector<size_t> left;
    for (size_t i = 0; i < batch.members.size(); ++i) {
      if (!cohort.is_alive[batch.members[i]]) continue;
      rows.push_back(static_cast<int64_t>(i));
      left.push_back(batch.members[i]);
    }
    if (!rows.empty() && rows.size() < batch.members.size()) batch.run.keep(rows);
    batch.members = std::move(left);
    return rows.empty();
  });
}

void CandidateSampler::finish(Cohort& cohort, size_t first, std::vector<Candidate>& candidates) {
  for (Batch& batch : cohort.batches) {
    const std::vector<at::Tensor> images = pipeline_.decode(batch.run.latents()).unbind(0);
    std::vector<std::string> encoded;
    std::vector<at::Tensor> stored;
    for (const at::Tensor& image : images) {
      encoded.push_back(encode(image, options_));
      stored.push_back(options_.format == StoredFormat::kPng ? image : images::decode_image(encoded.back()));
    }
    const at::Tensor scores = scorer_.score_pictures(stored, cohort.prompts_of(batch.members));
    cohort.set_scores(batch.members, scores);
    for (size_t i = 0; i < batch.members.size(); ++i) {
      if (!cohort.is_alive[batch.members[i]]) continue;
      const at::Tensor row = scores[static_cast<int64_t>(i)].contiguous();
      const double* values = row.data_ptr<double>();
      candidates.push_back({.request = first + batch.members[i],
                            .encoded = std::move(encoded[i]),
                            .scores = {values, values + row.numel()}});
      for (const double value : candidates.back().scores) {
        check_run(std::isfinite(value), "a reward model gave a score that is not finite for '",
                  cohort.requests[batch.members[i]].prompt, "', seed ", cohort.requests[batch.members[i]].seed);
      }
    }
  }
}

void CandidateSampler::compare_winners(const Cohort& cohort) {
  for (size_t begin = 0; begin < cohort.requests.size(); begin += options_.group_size) {
    const auto winner = [&](bool is_living_alone) {
      const std::vector<size_t> members = cohort.group(begin, options_.group_size, is_living_alone);
      return members[options_.ranking.best(cohort.scores_of(members), 1).front()];
    };
    ++counts_.checked_groups;
    counts_.same_winner += winner(true) == winner(false);
  }
}

}  // namespace prefusion::tools
