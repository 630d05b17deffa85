#include "training/reward/reward_options.h"

#include <charconv>
#include <sstream>

#include "core/error.h"
#include "losses/reward_losses.h"
#include "training/lr_schedule.h"

namespace prefusion::training {
namespace {

bool parse_double(const std::string& text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

void check_member(const std::string& flag, const std::string& value, std::initializer_list<const char*> choices) {
  std::string known;
  for (const char* choice : choices) {
    if (value == choice) return;
    known += (known.empty() ? "" : ", ") + std::string(choice);
  }
  fail_usage(flag, ' ', value, ": expected ", known);
}

}  // namespace

RewardTraining TrainRewardOptions::training() const {
  if (train == "head") return RewardTraining::kHead;
  if (train == "full") return RewardTraining::kFull;
  if (train == "users") return RewardTraining::kUsers;
  if (train.starts_with("last:")) return RewardTraining::kLast;
  fail_usage("--train ", train, ": expected head, last:N, full or users");
}

int64_t TrainRewardOptions::num_last_layers() const {
  int64_t count = 0;
  const char* end = train.data() + train.size();
  const auto [stop, error] = std::from_chars(train.data() + std::string("last:").size(), end, count);
  check_usage(error == std::errc() && stop == end && count > 0, "--train ", train,
              ": expected the number of layers of each tower, such as last:2");
  return count;
}

double TrainRewardOptions::default_lr() const {
  if (training() == RewardTraining::kUsers) return 5e-3;
  if (head == "pal") return 1e-4;
  if (!from_config.empty()) return 1e-3;
  return training() == RewardTraining::kHead ? 1e-4 : 3e-6;
}

std::map<std::string, double> parse_numbers(const std::string& text, std::map<std::string, double> known,
                                            const std::string& flag) {
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t equals = part.find('=');
    check_usage(equals != std::string::npos, flag, ": expected NAME=NUMBER, found '", part, "'");
    const auto entry = known.find(part.substr(0, equals));
    std::string names;
    for (const auto& [name, value] : known) names += (names.empty() ? "" : ", ") + name;
    check_usage(entry != known.end(), flag, ": '", part.substr(0, equals), "' is unknown here; there ",
                known.empty() ? std::string("is nothing to set") : "are " + names);
    check_usage(parse_double(part.substr(equals + 1), entry->second), flag, ": '", part, "' is no number");
  }
  return known;
}

void validate(const TrainRewardOptions& o) {
  check_usage(o.model.empty() != o.from_config.empty(), "give --model (a CLIP folder) or --from-config, and not both");
  check_usage(!o.data.empty() && !o.output.empty(), "--data and --output are needed");
  check_member("--head", o.head, {"cosine", "mlp", "aspects", "pal"});
  check_member("--groups", o.groups, {"auto", "pairs", "lists"});
  const auto& loss = losses::find_reward_loss(o.loss);
  parse_numbers(o.loss_args, loss.parameters, "--loss-args");
  parse_lr_schedule(o.lr_schedule);
  const RewardTraining training = o.training();
  if (training == RewardTraining::kLast) o.num_last_layers();
  check_usage(o.from_config.empty() || training == RewardTraining::kFull,
              "--from-config makes new weights: it goes with --train full");
  check_usage(training != RewardTraining::kUsers || o.head == "pal", "--train users goes with --head pal");
  check_usage((o.head == "aspects") == !o.aspects.empty(), "--head aspects and --aspects go together");
  check_usage(o.in_batch_negatives == 0 || o.head == "cosine", "--in-batch-negatives needs --head cosine");
  check_usage(o.in_batch_negatives == 0 || o.loss == "pickscore" || o.loss == "bradley-terry",
              "--in-batch-negatives goes with --loss pickscore or bradley-terry");
  check_usage(o.loss != "pickscore" || o.groups != "lists", "--loss pickscore is about pairs, not --groups lists");
  check_usage(o.loss != "mse" || o.head != "aspects",
              "--loss mse rates one column; it does not go with --head aspects");
  check_usage(o.eval_fraction > 0 && o.test_fraction >= 0 && o.eval_fraction + o.test_fraction < 1,
              "--eval-fraction and --test-fraction must be positive and leave something to train on");
}

}  // namespace prefusion::training
