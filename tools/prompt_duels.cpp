#include "tools/prompt_duels.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <optional>
#include <string>

#include "core/interrupt.h"
#include "core/progress.h"

namespace prefusion::tools {
namespace {

using reward_models::Duel;

// A line of the standard input, nothing at its end. Ctrl-C ends the waiting, which std::getline would go on with.
std::optional<std::string> read_line() {
  std::string line;
  while (true) {
    pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (::poll(&input, 1, -1) < 0) {
      throw_if_interrupted();
      continue;
    }
    char letter = 0;
    if (::read(STDIN_FILENO, &letter, 1) != 1) return std::nullopt;
    if (letter == '\n') return line;
    line += letter;
  }
}

// What a person answers; nothing at the end of the input or for q.
std::optional<double> ask_person() {
  std::fprintf(stderr, "Which is better? a, b, = for a tie, q to stop: ");
  while (const std::optional<std::string> line = read_line()) {
    if (*line == "a") return 1.0;
    if (*line == "b") return 0.0;
    if (*line == "=") return 0.5;
    if (*line == "q") return std::nullopt;
    std::fprintf(stderr, "a, b, = or q: ");
  }
  return std::nullopt;
}

void show(const PromptContest& contest, const Duel& duel, const DuelPictures& pictures) {
  const std::string& a = contest.prompt(duel.first);
  const std::string& b = contest.prompt(duel.second);
  const auto number = static_cast<long long>(contest.num_duels() + 1);
  if (pictures.judge) pictures.judge->write(a, b, contest.num_duels(), pictures.folder);
  std::fprintf(stderr, "\nduel %lld\n  a: %s\n  b: %s\n", number, a.c_str(), b.c_str());
  if (pictures.judge) std::fprintf(stderr, "  pictures: %s/duel-%04lld-*.png\n", pictures.folder.c_str(), number);
}

}  // namespace

void judge_duels(PromptContest& contest, PromptJudge& judge, int64_t num_duels, bool shows_progress) {
  Progress progress("optimize-prompt", num_duels, "duel", shows_progress);
  progress.set_start(contest.num_duels());
  while (contest.num_duels() < num_duels) {
    throw_if_interrupted();
    Duel duel = contest.bandit().next();
    duel.outcome = judge.compare(contest.prompt(duel.first), contest.prompt(duel.second), contest.num_duels());
    contest.add(duel);
    progress.update(contest.num_duels(), contest.prompt(contest.bandit().best()));
  }
}

void ask_duels(PromptContest& contest, const DuelPictures& pictures, int64_t num_duels) {
  while (contest.num_duels() < num_duels) {
    Duel duel = contest.bandit().next();
    show(contest, duel, pictures);
    const std::optional<double> answer = ask_person();
    throw_if_interrupted();
    if (!answer) return;
    duel.outcome = *answer;
    contest.add(duel);
  }
}

void pose_duel(const PromptContest& contest, const DuelPictures& pictures, const std::filesystem::path& file) {
  const Duel duel = contest.bandit().next();
  show(contest, duel, pictures);
  nlohmann::ordered_json row = {{"a", contest.prompt(duel.first)}, {"b", contest.prompt(duel.second)}};
  row["winner"] = "a";
  std::fprintf(stderr, "add a line to %s, winner a, b or tie, and run this again:\n  %s\n", file.c_str(),
               row.dump().c_str());
}

}  // namespace prefusion::tools
