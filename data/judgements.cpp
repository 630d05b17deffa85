#include "data/judgements.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"

namespace prefusion::data {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

std::variant<size_t, PictureName> parse_image(const Json& value, const std::string& where) {
  if (value.is_number_unsigned()) return value.get<size_t>();
  check_input(value.is_object(), where,
              ": an image is a position in the list or {\"model\": ..., \"seed\": ...}, found ", value.dump());
  ConfigReader reader(value, where + ": images");
  PictureName name{.model = reader.require<std::string>("model"), .seed = reader.require<uint64_t>("seed")};
  reader.finish();
  return name;
}

VoteWinner parse_winner(const std::string& text, const std::string& where) {
  if (text == "first") return VoteWinner::kFirst;
  if (text == "second") return VoteWinner::kSecond;
  check_input(text == "tie", where, ": 'winner' is first, second or tie, found '", text, "'");
  return VoteWinner::kTie;
}

Vote parse_vote(const Json& value, size_t num_images, const std::string& where) {
  check_input(value.is_object(), where, ": a vote is {\"order\": [0, 1], \"winner\": \"first\"}, found ", value.dump());
  ConfigReader reader(value, where + ": votes");
  const auto order = reader.require<std::vector<size_t>>("order");
  check_input(order.size() == 2 && order[0] != order[1] && std::max(order[0], order[1]) < num_images, where,
              ": 'order' names two of the ", num_images, " images by position, found ", shape_text(order));
  const Vote vote{
      .first = order[0], .second = order[1], .winner = parse_winner(reader.require<std::string>("winner"), where)};
  reader.finish();
  return vote;
}

// What one order of a pair says of its lower-numbered picture: 1, 0, or 1/2 without a majority.
struct Tally {
  double sum = 0;
  double count = 0;

  void add(double value) {
    sum += value;
    count += 1;
  }
  double majority() const {
    const double mean = sum / count;
    return mean > 0.5 ? 1.0 : mean < 0.5 ? 0.0 : 0.5;
  }
};

double reconcile(const Tally& as_shown, const Tally& swapped) {
  if (as_shown.count == 0) return swapped.majority();
  if (swapped.count == 0) return as_shown.majority();
  return as_shown.majority() == swapped.majority() ? as_shown.majority() : 0.5;
}

// The means of the columns; nothing unless every column has a number for every picture.
std::optional<std::vector<double>> mean_of(const std::map<std::string, std::vector<double>>& columns) {
  if (columns.empty()) return std::nullopt;
  std::vector<double> means(columns.begin()->second.size(), 0.0);
  for (const auto& [name, values] : columns) {
    for (size_t i = 0; i < values.size(); ++i) means[i] += values[i] / static_cast<double>(columns.size());
  }
  return means;
}

bool is_complete(const std::vector<double>& values) {
  return std::none_of(values.begin(), values.end(), [](double value) { return std::isnan(value); });
}

// Positions in the list of a judgement's images; empty when it has one that the list does not have.
std::vector<size_t> locate(const Judgement& judgement, const std::vector<PictureName>& pictures) {
  std::vector<size_t> positions;
  for (const auto& image : judgement.images) {
    size_t position = pictures.size();
    if (const auto* number = std::get_if<size_t>(&image)) {
      position = *number;
    } else {
      const auto found = std::find(pictures.begin(), pictures.end(), std::get<PictureName>(image));
      position = static_cast<size_t>(found - pictures.begin());
    }
    if (position >= pictures.size()) return {};
    positions.push_back(position);
  }
  return positions;
}

}  // namespace

Judgement parse_judgement(std::string_view line, const std::string& where) {
  const Json object = parse_json(line, where);
  check_input(object.is_object(), where, ": expected an object with 'prompt', 'images' and 'votes' or 'aspects'");
  ConfigReader reader(object, where);
  Judgement judgement{.prompt = reader.require<std::string>("prompt"), .images = {}, .votes = {}, .aspects = {}};
  const Json images = reader.raw("images");
  check_input(images.is_array() && !images.empty(), where, ": 'images' must be a list");
  for (const Json& image : images) {
    judgement.images.push_back(parse_image(image, where));
    const auto& all = judgement.images;
    check_input(std::find(all.begin(), all.end() - 1, all.back()) == all.end() - 1, where, ": image ", image.dump(),
                " is named twice");
  }
  const Json votes = reader.raw("votes");
  check_input(votes.is_null() || votes.is_array(), where, ": 'votes' must be a list");
  for (const Json& vote : votes) judgement.votes.push_back(parse_vote(vote, judgement.images.size(), where));
  const Json aspects = reader.raw("aspects");
  check_input(aspects.is_null() || aspects.is_object(), where, ": 'aspects' must be an object of lists");
  for (const auto& [name, unused] : aspects.items()) {
    ConfigReader columns(aspects, where + ": aspects");
    const auto values = columns.require<std::vector<double>>(name);
    check_input(values.size() == judgement.images.size(), where, ": aspect '", name, "' has ", values.size(),
                " numbers for ", judgement.images.size(), " images");
    judgement.aspects[name] = values;
  }
  check_input(!judgement.votes.empty() || !judgement.aspects.empty(), where, ": has neither 'votes' nor 'aspects'");
  reader.ignore({"critique"});  // for people
  reader.finish();
  return judgement;
}

std::vector<double> reconcile_votes(const std::vector<Vote>& votes, size_t count) {
  std::map<std::pair<size_t, size_t>, std::pair<Tally, Tally>>
      pairs;  // lower number first; shown in that order, or not
  for (const Vote& vote : votes) {
    const bool is_swapped = vote.first > vote.second;
    auto& tallies = pairs[std::minmax(vote.first, vote.second)];
    const double of_first = vote.winner == VoteWinner::kFirst ? 1.0 : vote.winner == VoteWinner::kSecond ? 0.0 : 0.5;
    (is_swapped ? tallies.second : tallies.first).add(is_swapped ? 1 - of_first : of_first);
  }
  std::vector<Tally> outcomes(count);
  for (const auto& [pair, tallies] : pairs) {
    const double outcome = reconcile(tallies.first, tallies.second);
    outcomes.at(pair.first).add(outcome);
    outcomes.at(pair.second).add(1 - outcome);
  }
  std::vector<double> shares;
  for (const Tally& tally : outcomes) shares.push_back(tally.count == 0 ? kNone : tally.sum / tally.count);
  return shares;
}

Judgements Judgements::read(const std::filesystem::path& path) {
  const std::string contents = read_file(path);
  Judgements all;
  std::string_view rest = contents;
  for (size_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (is_blank(line)) continue;
    Judgement judgement = parse_judgement(line, concat(path.string(), " line ", number));
    all.of_prompt_[judgement.prompt].push_back(all.judgements_.size());
    all.judgements_.push_back(std::move(judgement));
  }
  check_input(!all.judgements_.empty(), path.string(), ": holds no judgement");
  all.is_used_.resize(all.judgements_.size(), false);
  return all;
}

std::optional<JudgedList> Judgements::judge(const std::string& prompt, const std::vector<PictureName>& pictures) {
  const auto found = of_prompt_.find(prompt);
  if (found == of_prompt_.end()) return std::nullopt;
  std::vector<Vote> votes;
  std::map<std::string, std::vector<Tally>> tallies;
  for (const size_t index : found->second) {
    const Judgement& judgement = judgements_[index];
    const std::vector<size_t> positions = locate(judgement, pictures);
    if (positions.empty()) continue;
    is_used_[index] = true;
    for (const Vote& vote : judgement.votes) {
      votes.push_back({.first = positions[vote.first], .second = positions[vote.second], .winner = vote.winner});
    }
    for (const auto& [name, values] : judgement.aspects) {
      auto& tally = tallies.try_emplace(name, pictures.size()).first->second;
      for (size_t i = 0; i < values.size(); ++i) tally[positions[i]].add(values[i]);
    }
  }
  JudgedList judged;
  for (const auto& [name, of_pictures] : tallies) {
    std::vector<double> means;
    for (const Tally& tally : of_pictures) means.push_back(tally.count == 0 ? kNone : tally.sum / tally.count);
    if (is_complete(means)) judged.aspects[name] = means;
  }
  judged.values = votes.empty() ? mean_of(judged.aspects).value_or(std::vector<double>{kNone})
                                : reconcile_votes(votes, pictures.size());
  return is_complete(judged.values) ? std::optional<JudgedList>(std::move(judged)) : std::nullopt;
}

size_t Judgements::num_used() const {
  return static_cast<size_t>(std::count(is_used_.begin(), is_used_.end(), true));
}

}  // namespace prefusion::data
