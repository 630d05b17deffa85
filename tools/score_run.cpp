#include "tools/score_run.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "core/device.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "data/bad_limit.h"
#include "data/score_source.h"
#include "reward_models/scorer.h"
#include "tools/score_baseline.h"
#include "tools/score_output.h"
#include "tools/score_pipeline.h"
#include "tools/score_summary.h"

namespace prefusion::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxNamed = 20;     // pictures with errors that are named in the log; all are in the output
constexpr double kSyncSeconds = 5.0;  // what a power failure costs at most; a killed process loses a batch

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The run's items, of inputs or of the single picture.
class Items {
 public:
  explicit Items(const ScoreRunOptions& options) : options_(options) {
    if (options.image.empty()) inputs_.emplace(options.inputs, data::ScoreInputs::Options{options.recursive});
  }

  int64_t count() { return inputs_ ? inputs_->count() : 1; }

  bool next(data::ScoreItem& item, bool wants_picture) {
    if (inputs_) return inputs_->next(item, wants_picture);
    if (is_taken_) return false;
    item = {.image = options_.image.string(), .prompt = options_.prompt, .path = options_.image};
    return is_taken_ = true;
  }

 private:
  const ScoreRunOptions& options_;
  std::optional<data::ScoreInputs> inputs_;
  bool is_taken_ = false;
};

std::vector<std::string> input_names(const ScoreRunOptions& options) {
  std::vector<std::string> names;
  for (const auto& path : options.inputs) names.push_back(std::filesystem::absolute(path).lexically_normal().string());
  if (!options.image.empty()) {
    names = {std::filesystem::absolute(options.image).lexically_normal().string(), options.prompt.value_or("")};
  }
  return names;
}

ScoreState describe_run(const ScoreRunOptions& options, const reward_models::Scorer& scorer, int64_t num_inputs) {
  ScoreState state{.rewards = Json::array(),
                   .dtype = dtype_name(options.dtype),
                   .device = options.device.is_cpu() ? "cpu" : "cuda",
                   .inputs = input_names(options),
                   .recursive = options.recursive,
                   .details = options.details,
                   .num_inputs = num_inputs,
                   .batch_size = options.batch_size,
                   .shard = parse_score_shard(options.shard),
                   .layout = score_layout(scorer, options.details)};
  if (options.output.empty()) return state;  // fingerprints take time
  for (const auto& spec : options.rewards) state.rewards.push_back(describe_reward(spec));
  return state;
}

bool path_exists(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

void check_output(const ScoreRunOptions& options) {
  if (options.output.empty()) {
    check_usage(!options.resume && !options.overwrite, "--resume and --overwrite need --output");
    return;
  }
  const std::filesystem::path journal = score_journal_path(options.output);
  for (const auto& input : options.inputs) {
    std::error_code error;
    check_usage(!std::filesystem::equivalent(input, options.output, error), options.output.string(),
                ": is --input and --output at once");
  }
  const bool is_there = path_exists(options.output) || path_exists(journal);
  check_usage(!is_there || options.resume || options.overwrite, options.output.string(),
              ": exists already; --resume goes on with it, --overwrite begins anew");
}

class ScoreRun {
 public:
  explicit ScoreRun(const ScoreRunOptions& options)
      : options_(options), items_(options), max_bad_(data::parse_bad_limit(options.max_bad)) {
    parse_score_shard(options.shard);
    check_output(options);
    num_inputs_ = items_.count();
    check_input(num_inputs_ > 0, "the inputs hold no pictures");
    scorer_ = std::make_unique<reward_models::Scorer>(
        options.rewards, reward_models::ScorerOptions{
                             .dtype = options.dtype, .device = options.device, .batch_size = options.batch_size});
    state_ = describe_run(options, *scorer_, num_inputs_);
    range_ = shard_range(state_.shard, num_inputs_, options.batch_size);
    summary_ = std::make_unique<ScoreSummary>(state_.layout.rewards);
    if (!options.baseline.empty()) baseline_.emplace(options.baseline, state_.layout.rewards);
  }

  void run() {
    const bool is_finished = options_.resume && path_exists(score_state_path(options_.output)) && take_finished();
    if (!is_finished) score();
    if (options_.shows_progress) report();
  }

 private:
  int64_t num_items() const { return range_.end - range_.begin; }

  void consume(const ScoreRow& row) {
    summary_->add(row);
    if (baseline_) baseline_->add(row);
  }

  // Whether the output is whole already; checks that it is this run's.
  bool take_finished() {
    const ScoreState found = read_score_state(options_.output);
    check_same_scoring(found, state_, options_.output.string());
    if (!found.finished || !path_exists(options_.output)) return false;
    const auto reader = open_score_file(options_.output, state_.layout);
    for (ScoreRow row; reader->next(row); row = {}) consume(row);
    check_input(summary_->num_rows() == num_items(), options_.output.string(), ": has ", summary_->num_rows(),
                " rows, expected ", num_items(), "; it was changed after it was finished");
    log_info(options_.output.string(), " is complete: ", num_items(), " rows");
    return true;
  }

  // Opens the output; returns the number of rows that it has.
  int64_t open_output() {
    const std::filesystem::path& path = options_.output;
    const bool goes_on = options_.resume && path_exists(score_journal_path(path));
    if (goes_on) check_same_scoring(read_score_state(path), state_, path.string());
    output_ = std::make_unique<ScoreOutput>(path, state_.layout);
    if (!goes_on) {
      if (!path.empty()) write_score_state(path, state_);
      output_->start();
      return 0;
    }
    data::ScoreItem item;
    return output_->resume(options_.batch_size, num_items(), [&](const ScoreRow& row) {
      const bool is_same = items_.next(item, /*wants_picture=*/false) && valid_text(item.image) == row.image &&
                           valid_text(item.prompt.value_or("")) == row.prompt.value_or("");
      check_input(is_same, path.string(), ": row ", summary_->num_rows(), " is of ", row.image, " under '",
                  row.prompt.value_or(""), "', but the input has ", item.image, " under '", item.prompt.value_or(""),
                  "' there; begin anew with --overwrite");
      consume(row);
    });
  }

  void score() {
    data::ScoreItem skipped;
    for (int64_t i = 0; i < range_.begin; ++i) {
      throw_if_interrupted();
      items_.next(skipped, /*wants_picture=*/false);
    }
    const int64_t num_done = open_output();
    if (num_done > 0) log_info("resuming after ", num_done, " of ", num_items(), " rows");
    check_bad();
    try {
      score_from(num_done);
    } catch (const Interrupted&) {
      output_->sync();
      throw;
    }
    output_->finish();
    if (options_.output.empty()) return;
    state_.finished = true;
    state_.num_rows = summary_->num_rows();
    state_.num_bad = summary_->num_bad();
    write_score_state(options_.output, state_);
    const std::filesystem::path journal = score_journal_path(options_.output);
    if (journal != options_.output) std::filesystem::remove(journal);
  }

  void score_from(int64_t num_done) {
    int64_t num_left = num_items() - num_done;
    const auto next = [&](data::ScoreItem& item) { return num_left-- > 0 && items_.next(item, true); };
    const int workers =
        options_.workers > 0 ? options_.workers : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    const auto batch_size = static_cast<size_t>(options_.batch_size);
    ScorePipeline pipeline(next, *scorer_, workers, 2 * batch_size + static_cast<size_t>(workers));
    Progress progress("scoring", num_items(), "image", options_.shows_progress);
    progress.set_start(num_done);
    const Clock::time_point began = Clock::now();
    Clock::time_point synced = began;
    double waiting = 0;
    double computing = 0;
    for (;;) {
      throw_if_interrupted();
      const Clock::time_point asked = Clock::now();
      std::vector<ScoreJob> jobs = pipeline.take(batch_size);
      waiting += seconds_since(asked);
      if (jobs.empty()) break;
      const Clock::time_point got = Clock::now();
      const std::vector<ScoreRow> rows = score_jobs(*scorer_, std::move(jobs), state_.layout);
      computing += seconds_since(got);
      output_->append(rows);
      if (seconds_since(synced) > kSyncSeconds) {
        output_->sync();
        synced = Clock::now();
      }
      for (const ScoreRow& row : rows) take_new(row);
      check_bad();
      progress.update(summary_->num_rows(), summary_->num_bad() > 0 ? concat(summary_->num_bad(), " bad") : "");
    }
    check_input(summary_->num_rows() == num_items(), "the inputs gave ", summary_->num_rows(),
                " pictures, counted were ", num_items(), "; they changed during the run");
    report_speed(summary_->num_rows() - num_done, seconds_since(began), waiting, computing);
  }

  void take_new(const ScoreRow& row) {
    consume(row);
    if (row.error.empty() || summary_->num_bad() > kMaxNamed) return;
    log_warn(row.image, ": ", row.error);
    if (summary_->num_bad() == kMaxNamed) log_warn("further pictures with errors are named in the output only");
  }

  void check_bad() const {
    if (!max_bad_.is_exceeded(summary_->num_bad(), num_items())) return;
    if (output_) output_->sync();
    fail_input(summary_->num_bad(), " of ", summary_->num_rows(), " pictures could not be scored, more than --max-bad ",
               options_.max_bad, " of ", num_items(), " allows; the first is ", summary_->first_bad());
  }

  static void report_speed(int64_t count, double seconds, double waiting, double computing) {
    if (count == 0 || seconds <= 0) return;
    char text[256];
    std::snprintf(
        text, sizeof text,
        "%lld pictures in %s, %.1f images/s; waited for reading and decoding %.0f %%, scored %.0f %% of the time",
        static_cast<long long>(count), duration_text(seconds).c_str(), static_cast<double>(count) / seconds,
        100 * waiting / seconds, 100 * computing / seconds);
    log_info(text);
  }

  void report() const {
    std::string text = summary_->text();
    if (summary_->num_bad() > 0) {
      text += concat(summary_->num_bad(), " of ", summary_->num_rows(), " pictures could not be scored\n");
    }
    if (baseline_) text += baseline_->text();
    std::fputs(text.c_str(), stderr);
  }

  const ScoreRunOptions& options_;
  Items items_;
  data::BadLimit max_bad_;
  int64_t num_inputs_ = 0;
  std::unique_ptr<reward_models::Scorer> scorer_;
  ScoreState state_;
  ScoreRange range_;
  std::unique_ptr<ScoreSummary> summary_;
  std::optional<ScoreBaseline> baseline_;
  std::unique_ptr<ScoreOutput> output_;
};

}  // namespace

void run_scoring(const ScoreRunOptions& options) {
  ScoreRun(options).run();
}

}  // namespace prefusion::tools
