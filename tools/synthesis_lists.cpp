#include "tools/synthesis_lists.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "data/named_scores.h"
#include "data/parquet_writer.h"

namespace prefusion::tools {
namespace {

// A picture of a list, and the model that made it.
struct Item {
  size_t model = 0;
  const JournalPicture* picture = nullptr;
};

struct List {
  std::vector<Item> items;
  at::Tensor scores;  // [n, R] of the rewards
  std::optional<data::JudgedList> judged;
};

at::Tensor score_rows(const std::vector<Item>& items) {
  std::vector<double> numbers;
  for (const Item& item : items)
    numbers.insert(numbers.end(), item.picture->scores.begin(), item.picture->scores.end());
  return at::tensor(numbers, at::kDouble).view({static_cast<int64_t>(items.size()), -1});
}

at::Tensor as_column(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble).unsqueeze(1);
}

std::vector<double> as_vector(const at::Tensor& values) {
  const at::Tensor packed = values.contiguous();
  return {packed.data_ptr<double>(), packed.data_ptr<double>() + packed.numel()};
}

// Goes through the lists of a journal, one after the other.
class Lists {
 public:
  Lists(const SynthesizeOptions& options, const SynthesisPlan& plan, ListRanking& ranking,
        const SynthesisJournal& journal)
      : options_(options), plan_(plan), ranking_(ranking), journal_(journal) {}

  template <typename Visit>
  void visit(const Visit& take) {
    std::vector<size_t> cursors(plan_.model_names.size(), 0);
    for (size_t prompt = 0; prompt < plan_.prompts.size(); ++prompt) {
      throw_if_interrupted();
      List list;
      for (size_t model = 0; model < cursors.size(); ++model) add_best(model, prompt, cursors[model], list);
      list.scores = score_rows(list.items);
      if (ranking_.judgements()) list.judged = judge(prompt, list);
      take(prompt, list);
    }
  }

 private:
  void add_best(size_t model, size_t prompt, size_t& cursor, List& list) const {
    const std::vector<JournalPicture>& pictures = journal_.pictures(model);
    std::vector<Item> made;
    for (; cursor < pictures.size() && pictures[cursor].prompt == prompt; ++cursor) {
      made.push_back({model, &pictures[cursor]});
    }
    check_run(!made.empty(), "the journal has no picture of prompt ", prompt, " by model ", plan_.model_names[model]);
    for (const size_t best : ranking_.of_group().best(score_rows(made), static_cast<size_t>(options_.per_model))) {
      list.items.push_back(made[best]);
    }
  }

  std::optional<data::JudgedList> judge(size_t prompt, const List& list) const {
    std::vector<data::PictureName> names;
    for (const Item& item : list.items) names.push_back({plan_.model_names[item.model], item.picture->seed});
    return ranking_.judgements()->judge(plan_.prompts[prompt].prompt, names);
  }

  const SynthesizeOptions& options_;
  const SynthesisPlan& plan_;
  ListRanking& ranking_;
  const SynthesisJournal& journal_;
};

// Sums over the lists as they go by.
class SummaryMaker {
 public:
  SummaryMaker(const SynthesisPlan& plan, const ListRanking& ranking) : columns_(plan.columns) {
    summary_.aggregate = ranking.kind().name;
    for (const std::string& name : plan.model_names) summary_.models.push_back({.name = name, .scores = {}});
  }

  void add(const List& list, const at::Tensor& all_scores, const std::vector<double>& phi,
           const std::vector<double>& places, const reward_models::ScoreStatistics& statistics) {
    ++summary_.lists;
    const auto num_first = static_cast<double>(std::count(places.begin(), places.end(), 0.0));
    for (size_t i = 0; i < list.items.size(); ++i) {
      ModelSummary& model = summary_.models[list.items[i].model];
      ++model.pictures;
      for (size_t r = 0; r < columns_.size(); ++r) model.scores[columns_[r]] += list.items[i].picture->scores[r];
      model.phi += phi[i];
      if (places[i] == 0) model.first_share += 1 / num_first;
      for (size_t j = 0; j < i; ++j) num_ties_ += places[i] == places[j];
      num_pairs_ += static_cast<int64_t>(i);
    }
    disagreement_ += reward_models::disagreement(all_scores, statistics).sum().item<double>();
    const reward_models::Discordance found = reward_models::discordance(all_scores);
    summary_.discordance.ordered += found.ordered;
    summary_.discordance.discordant += found.discordant;
    summary_.judged_lists += list.judged.has_value();
  }

  ListsSummary finish() {
    for (ModelSummary& model : summary_.models) {
      const double count = std::max<double>(1, static_cast<double>(model.pictures));
      for (auto& [name, sum] : model.scores) sum /= count;
      model.phi /= count;
      model.first_share /= static_cast<double>(std::max<int64_t>(1, summary_.lists));
      summary_.pictures += model.pictures;
    }
    summary_.tie_share = num_pairs_ > 0 ? static_cast<double>(num_ties_) / static_cast<double>(num_pairs_) : 0;
    summary_.disagreement = disagreement_ / std::max<double>(1, static_cast<double>(summary_.pictures));
    return summary_;
  }

 private:
  std::vector<std::string> columns_;
  ListsSummary summary_;
  int64_t num_ties_ = 0;
  int64_t num_pairs_ = 0;
  double disagreement_ = 0;
};

}  // namespace

ListsSummary write_lists(const SynthesizeOptions& options, const SynthesisPlan& plan, ListRanking& ranking,
                         const SynthesisJournal& journal, const Json& settings) {
  Lists lists(options, plan, ranking, journal);
  reward_models::RunningStatistics of_rewards;
  reward_models::RunningStatistics of_judgements;
  lists.visit([&](size_t, const List& list) {
    of_rewards.add(list.scores);
    if (list.judged) of_judgements.add(as_column(list.judged->values));
  });
  const ListRanking::Statistics statistics = ranking.statistics(of_rewards, of_judgements);

  data::RankedListWriter writer(options.output, 256, int64_t{64} << 20, {{"prefusion", settings.dump()}});
  SummaryMaker summary(plan, ranking);
  Progress progress("write", static_cast<int64_t>(plan.prompts.size()), "list", options.shows_progress);
  lists.visit([&](size_t prompt, const List& list) {
    at::Tensor scores = list.scores;
    reward_models::ScoreStatistics of_columns = statistics.rewards;
    if (list.judged) {
      scores = at::cat({scores, as_column(list.judged->values)}, 1);
      of_columns = {.mean = at::cat({of_columns.mean, statistics.judgements.mean}),
                    .std = at::cat({of_columns.std, statistics.judgements.std})};
    }
    const at::Tensor values = ranking.values(scores, list.judged.has_value(), of_columns);
    const std::vector<double> value = as_vector(values);
    const std::vector<double> phi =
        ranking.kind().is_share
            ? value
            : as_vector(reward_models::aggregate(reward_models::Aggregate::kWins, values.unsqueeze(1)));
    const std::vector<double> places = as_vector(reward_models::places(values));

    data::RankedRow row{.prompt = plan.prompts[prompt].prompt, .images = {}};
    for (size_t i = 0; i < list.items.size(); ++i) {
      const Item& item = list.items[i];
      data::RankedItem image{.image = journal.read(item.model, *item.picture),
                             .model = plan.model_names[item.model],
                             .seed = static_cast<int64_t>(item.picture->seed),
                             .scores = {{data::kPhiScore, phi[i]}},
                             .rank = places[i]};
      for (size_t r = 0; r < plan.columns.size(); ++r) image.scores[plan.columns[r]] = item.picture->scores[r];
      if (!ranking.kind().is_share) image.scores[ranking.kind().name] = value[i];
      if (list.judged) {
        image.scores[data::kJudgementScore] = list.judged->values[i];
        for (const auto& [aspect, numbers] : list.judged->aspects) {
          image.scores[std::string(data::kJudgementScore) + "/" + aspect] = numbers[i];
        }
      }
      row.images.push_back(std::move(image));
    }
    writer.add(row);
    summary.add(list, scores, phi, places, of_columns);
    progress.update(static_cast<int64_t>(prompt) + 1);
  });
  writer.finish();

  ListsSummary result = summary.finish();
  const auto note = [&](const std::string& column, const reward_models::ScoreStatistics& of_column, int64_t index) {
    result.statistics[column] = {of_column.mean[index].item<double>(), of_column.std[index].item<double>()};
  };
  for (size_t r = 0; r < plan.columns.size(); ++r) {
    note(plan.columns[r], of_rewards.statistics(), static_cast<int64_t>(r));
  }
  if (of_judgements.count() > 0) note(data::kJudgementScore, of_judgements.statistics(), 0);
  if (ranking.judgements()) {
    result.judgements = static_cast<int64_t>(ranking.judgements()->size());
    result.used_judgements = static_cast<int64_t>(ranking.judgements()->num_used());
  }
  result.is_pruned = !options.prunes.empty();
  result.counts = journal.counts();
  return result;
}

}  // namespace prefusion::tools
