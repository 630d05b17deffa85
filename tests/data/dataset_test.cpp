#include "data/dataset.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "core/atomic_file.h"
#include "core/json_config.h"
#include "data/group_rules.h"
#include "data/segment_cache.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::mentions;

class Records : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = tests::run_reference_script("make_data.py", {"records"});
    expected_ = read_json(folder_ / "expected.json");
  }
  static std::filesystem::path folder_;
  static Json expected_;
};
std::filesystem::path Records::folder_;
Json Records::expected_;

void expect_pair(const PreferenceRecord& record, const Json& expected, const std::string& file) {
  EXPECT_EQ(record.id, concat(file, ".parquet row ", expected.at("row").get<int64_t>()));
  EXPECT_EQ(record.prompt, expected.at("prompt"));
  ASSERT_EQ(record.items.size(), 2u);
  EXPECT_EQ(record.items[0].encoded, expected.at("chosen"));
  EXPECT_EQ(record.items[1].encoded, expected.at("rejected"));
  EXPECT_EQ(record.items[0].model, expected.at("model"));
  EXPECT_NEAR(record.items[0].label, expected.at("label").get<double>(), 1e-6);
  EXPECT_NEAR(record.items[0].label + record.items[1].label, 1.0, 1e-6);
  EXPECT_EQ(record.items[0].rank, 0);
  EXPECT_EQ(record.items[1].rank, 1);
}

TEST_F(Records, ReadsPickapicWhateverTheTypesAndOrderOfColumns) {
  for (const std::string name : {"plain", "bare", "struct", "second_label"}) {
    const Json& expected = expected_.at(name);
    const auto dataset =
        open_preference_data({folder_ / (name + ".parquet")}, {.max_bad = {.count = 0, .fraction = 0}});
    const DatasetSummary& summary = dataset->summary();
    EXPECT_EQ(summary.rows, expected.at("rows")) << name;
    EXPECT_EQ(summary.used_rows, expected.at("used_rows")) << name;
    EXPECT_EQ(summary.ties, expected.at("ties")) << name;
    EXPECT_EQ(summary.missing_labels, expected.at("missing_labels")) << name;
    EXPECT_EQ(summary.inconsistent, expected.at("inconsistent")) << name;
    EXPECT_EQ(summary.missing_prompts, expected.at("missing_prompts")) << name;
    EXPECT_EQ(summary.rows, summary.used_rows + summary.dropped());
    const Json& groups = expected.at("groups");
    ASSERT_EQ(dataset->size(), static_cast<int64_t>(groups.size())) << name;
    for (int64_t i = dataset->size() - 1; i >= 0; --i) {
      SCOPED_TRACE(concat(name, " group ", i));
      expect_pair(dataset->read(i), groups[static_cast<size_t>(i)], name);
      EXPECT_EQ(dataset->prompt(i), groups[static_cast<size_t>(i)].at("prompt"));
    }
  }
}

TEST_F(Records, KeepsTiesWhenAsked) {
  const auto without = open_preference_data({folder_ / "plain.parquet"});
  const auto with = open_preference_data({folder_ / "plain.parquet"}, {.keep_ties = true});
  EXPECT_GT(without->summary().ties, 0);
  EXPECT_EQ(with->size(), without->size() + without->summary().ties);
  int64_t ties = 0;
  for (int64_t i = 0; i < with->size(); ++i) ties += with->labels(i) == std::vector<double>{0.5, 0.5} ? 1 : 0;
  EXPECT_EQ(ties, with->summary().ties);
}

TEST_F(Records, MixesFilesAndFoldersOfPairs) {
  const auto dataset = open_preference_data(
      {folder_ / "plain.parquet", folder_ / "folders", folder_ / "manifest/train.json"}, {.max_bad = {.count = 5}});
  const int64_t from_parquet = static_cast<int64_t>(expected_.at("plain").at("groups").size());
  ASSERT_EQ(dataset->size(), from_parquet + 2 + 2);
  EXPECT_EQ(dataset->summary().files, 3);
  const PreferenceRecord folder_pair = dataset->read(from_parquet);
  EXPECT_EQ(folder_pair.prompt, "caption a");
  EXPECT_EQ(folder_pair.items[0].encoded, "chosen a");
  EXPECT_EQ(folder_pair.items[1].encoded, "rejected a");
  EXPECT_EQ(dataset->prompt(from_parquet + 1), "caption b");
  EXPECT_EQ(dataset->summary().missing_prompts, 1 + expected_.at("plain").at("missing_prompts").get<int64_t>());
  EXPECT_EQ(dataset->summary().malformed, 1);  // folders/chosen/d.png has no rejected picture
  const PreferenceRecord hpd = dataset->read(from_parquet + 3);
  EXPECT_EQ(hpd.prompt, "q \"]\" \\");
  EXPECT_EQ(hpd.items[0].encoded, "hpd d");
  EXPECT_EQ(hpd.items[1].encoded, "hpd c");
  EXPECT_EQ(hpd.id, "train.json row 1");
}

TEST_F(Records, UnderstandsEveryFormOfManifestRow) {
  const DatasetOptions options{.max_bad = {.count = 5}};
  const auto dataset = open_preference_data({folder_ / "manifest/pairs.jsonl"}, options);
  struct Expected {
    std::string prompt, chosen, rejected;
    double label;
  };
  const std::vector<Expected> expected = {{"scores", "b", "a", 1},
                                          {"ranks", "f", "e", 1},
                                          {"label", "b", "a", 1},
                                          {"labels", "b", "a", 0.75},
                                          {"scores of two", "b", "a", 1}};
  ASSERT_EQ(dataset->size(), static_cast<int64_t>(expected.size()));
  for (int64_t i = 0; i < dataset->size(); ++i) {
    const auto& row = expected[static_cast<size_t>(i)];
    EXPECT_EQ(dataset->prompt(i), row.prompt);
    EXPECT_NEAR(dataset->labels(i)[0], row.label, 1e-6);
  }
  EXPECT_EQ(dataset->read(0).items[0].encoded, "b");
  EXPECT_EQ(dataset->read(0).items[1].encoded, "a");
  EXPECT_EQ(dataset->read(0).id, "pairs.jsonl line 1");
  EXPECT_EQ(dataset->read(3).id, "pairs.jsonl line 7");
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput,
                                     [&] {
                                       open_preference_data({folder_ / "manifest/pairs.jsonl"},
                                                            {.max_bad = {.count = 2, .fraction = 0}});
                                     }),
                       "3 rows"));
  EXPECT_EQ(dataset->summary().ties, 2);
  EXPECT_EQ(dataset->summary().missing_labels, 1);
  EXPECT_EQ(dataset->summary().inconsistent, 1);
  EXPECT_EQ(dataset->summary().missing_prompts, 1);
  EXPECT_EQ(dataset->summary().malformed, 3);
}

TEST_F(Records, ReportsAMissingPictureWithItsRow) {
  const auto dataset = open_preference_data({folder_ / "manifest/pairs.jsonl"}, {.max_bad = {.count = 5}});
  std::filesystem::rename(folder_ / "manifest/pics/f.png", folder_ / "manifest/pics/away");
  const std::string message = error_message(ErrorClass::kInput, [&] { dataset->read(1); });
  std::filesystem::rename(folder_ / "manifest/pics/away", folder_ / "manifest/pics/f.png");
  EXPECT_TRUE(mentions(message, "pairs.jsonl line 3"));
  EXPECT_TRUE(mentions(message, "f.png"));
}

TEST_F(Records, ReadsUnpairedData) {
  const auto dataset = open_preference_data({folder_ / "manifest/unpaired.jsonl"}, {.group = GroupKind::kUnpaired});
  ASSERT_EQ(dataset->size(), 2);
  EXPECT_EQ(dataset->group_size(), 1);
  EXPECT_EQ(dataset->labels(0), std::vector<double>{1});
  EXPECT_EQ(dataset->labels(1), std::vector<double>{0});
  EXPECT_EQ(dataset->read(1).items[0].encoded, "b");
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kInput, [&] { open_preference_data({folder_ / "manifest/unpaired.jsonl"}); }),
               "nothing"));
}

TEST_F(Records, TurnsPairsIntoSingles) {
  const auto pairs = open_preference_data({folder_ / "plain.parquet"});
  const auto singles = open_preference_data({folder_ / "plain.parquet"}, {.group = GroupKind::kUnpaired});
  ASSERT_EQ(singles->size(), 2 * pairs->size());
  const PreferenceRecord pair = pairs->read(3);
  EXPECT_EQ(singles->read(6).items[0].encoded, pair.items[0].encoded);
  EXPECT_EQ(singles->read(7).items[0].encoded, pair.items[1].encoded);
  EXPECT_EQ(singles->labels(6), std::vector<double>{1});
  EXPECT_EQ(singles->labels(7), std::vector<double>{0});
}

TEST_F(Records, OrdersRankedListsByRankWithWinSharesAsLabels) {
  const auto lists = open_preference_data({folder_ / "lists.parquet"}, {.group = GroupKind::kList, .list_size = 4});
  const auto shortest = open_preference_data({folder_ / "lists.parquet"}, {.group = GroupKind::kList});
  const auto longer = open_preference_data({folder_ / "lists.parquet"}, {.group = GroupKind::kList, .list_size = 5});
  EXPECT_EQ(shortest->group_size(), 4);
  EXPECT_EQ(longer->size(), 4);
  EXPECT_EQ(longer->summary().short_lists, 5);
  ASSERT_EQ(lists->size(), 9);
  for (int64_t i = 0; i < 9; ++i) {
    const Json& expected = expected_.at("lists")[static_cast<size_t>(i)];
    const auto images = expected.at("images").get<std::vector<std::string>>();
    const auto labels = expected.at("labels").get<std::vector<double>>();
    const PreferenceRecord record = lists->read(i);
    EXPECT_EQ(record.prompt, expected.at("prompt"));
    // Five items are thinned to four: the middle one goes.
    const std::vector<size_t> kept =
        images.size() == 4 ? std::vector<size_t>{0, 1, 2, 3} : std::vector<size_t>{0, 1, 3, 4};
    for (size_t n = 0; n < 4; ++n) {
      EXPECT_EQ(record.items[n].encoded, images[kept[n]]) << i;
      EXPECT_NEAR(record.items[n].label, labels[kept[n]], 1e-6) << i;
      EXPECT_EQ(record.items[n].rank, static_cast<double>(n));
    }
    EXPECT_EQ(shortest->read(i).items[3].encoded, record.items[3].encoded);
  }
}

TEST_F(Records, OrdersRankedListsByANamedScore) {
  const DatasetOptions options{.group = GroupKind::kList, .list_size = 4, .score_name = "taste"};
  const auto lists = open_preference_data({folder_ / "lists.parquet"}, options);
  const Json& expected = expected_.at("lists")[0];
  const PreferenceRecord record = lists->read(0);
  for (size_t n = 0; n < 4; ++n) {
    EXPECT_EQ(record.items[n].encoded, expected.at("taste_images")[n]);
    EXPECT_NEAR(record.items[n].label, expected.at("taste_labels")[n].get<double>(), 1e-6);
  }
  error_message(ErrorClass::kInput,
                [&] { open_preference_data({folder_ / "lists.parquet"}, {.score_name = "absent"}); });
}

TEST_F(Records, MakesPairsOfLists) {
  const auto ends = open_preference_data({folder_ / "lists.parquet"});
  ASSERT_EQ(ends->size(), 9);
  const auto images = expected_.at("lists")[1].at("images").get<std::vector<std::string>>();
  EXPECT_EQ(ends->read(1).items[0].encoded, images.front());
  EXPECT_EQ(ends->read(1).items[1].encoded, images.back());
  EXPECT_EQ(ends->labels(1), (std::vector<double>{1, 0}));
  const auto neighbours = open_preference_data({folder_ / "lists.parquet"}, {.list_pairs = ListPairs::kAdjacent});
  EXPECT_EQ(neighbours->size(), 5 * 3 + 4 * 4);
  EXPECT_EQ(neighbours->read(4).items[0].encoded, images[1]);
  EXPECT_EQ(neighbours->read(4).items[1].encoded, images[2]);
}

TEST_F(Records, NamesWhatIsWrongWithAFile) {
  const auto message = [&](const std::string& name) {
    return error_message(ErrorClass::kInput, [&] { open_preference_data({folder_ / "broken" / name}); });
  };
  EXPECT_TRUE(mentions(message("cut.parquet"), "cut.parquet"));
  EXPECT_TRUE(mentions(message("text.parquet"), "text.parquet"));
  EXPECT_TRUE(mentions(message("empty.parquet"), "empty.parquet"));
  EXPECT_TRUE(mentions(message("no_images.parquet"), "jpg_0"));
  EXPECT_TRUE(mentions(message("no_images.parquet"), "caption, label_0"));
  EXPECT_TRUE(mentions(message("wrong_type.parquet"), "string"));
  EXPECT_TRUE(mentions(message("absent.parquet"), "no such file"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { open_preference_data({folder_ / "pictures_none"}); }),
                       "no such file or folder"));
}

TEST_F(Records, SkipsUnreadableFilesUpToTheLimit) {
  const std::vector<std::filesystem::path> paths = {folder_ / "plain.parquet", folder_ / "broken/cut.parquet"};
  const auto dataset = open_preference_data(paths, {.max_bad = {.count = 1}});
  EXPECT_EQ(dataset->summary().bad_files, 1);
  EXPECT_EQ(dataset->size(), static_cast<int64_t>(expected_.at("plain").at("groups").size()));
  error_message(ErrorClass::kInput, [&] { open_preference_data(paths, {.max_bad = {.count = 0, .fraction = 0.1}}); });
}

TEST_F(Records, LosesOnlyTheRowsOfDamagedPages) {
  const auto dataset = open_preference_data({folder_ / "broken/pages.parquet"});
  const auto whole = open_preference_data({folder_ / "many_groups.parquet"});
  std::set<int64_t> failed;
  for (int64_t i = 0; i < dataset->size(); ++i) {
    try {
      EXPECT_EQ(dataset->read(i).items[0].encoded, whole->read(i).items[0].encoded);
    } catch (const Error& error) {
      EXPECT_EQ(error.error_class(), ErrorClass::kInput);
      EXPECT_TRUE(mentions(error.what(), concat("pages.parquet row ", i)));
      failed.insert(i);
    }
  }
  EXPECT_EQ(failed, (std::set<int64_t>{12, 13, 14, 15, 308, 309, 310, 311}));
}

// 2000 rows of 3 KB, windows of 256 KB: the file must be read in pieces, in any order of rows.
TEST_F(Records, ReadsLargeRowGroupsInPieces) {
  for (const char* name : {"one_group", "many_groups"}) {
    const auto dataset = open_preference_data({folder_ / concat(name, ".parquet")}, {.window_bytes = 256 << 10});
    ASSERT_EQ(dataset->size(), 2000);
    const auto check = [&](int64_t i) {
      const PreferenceRecord record = dataset->read(i);
      EXPECT_EQ(record.prompt, concat("prompt ", i));
      const auto& first = record.items[i % 2 == 1 ? 0 : 1].encoded;
      EXPECT_TRUE(first.starts_with(concat("image 0 of row ", i))) << name << ' ' << i << ' ' << first.substr(0, 30);
    };
    for (const int64_t i : {1999, 0, 1000, 999, 1001, 1, 1998}) check(i);
    for (const int64_t i : dataset->epoch_order(1, 2)) check(i);
  }
}

TEST_F(Records, ShufflesByTheSeedAndEpochAlone) {
  for (const char* name : {"one_group", "many_groups", "plain"}) {
    const DatasetOptions options{.window_bytes = 256 << 10};
    const auto dataset = open_preference_data({folder_ / concat(name, ".parquet")}, options);
    const auto again = open_preference_data({folder_ / concat(name, ".parquet")}, options);
    const auto order = dataset->epoch_order(1, 0);
    EXPECT_EQ(order, again->epoch_order(1, 0));
    EXPECT_NE(order, dataset->epoch_order(1, 1));
    EXPECT_NE(order, dataset->epoch_order(2, 0));
    auto sorted = order;
    std::sort(sorted.begin(), sorted.end());
    std::vector<int64_t> all(static_cast<size_t>(dataset->size()));
    std::iota(all.begin(), all.end(), int64_t{0});
    EXPECT_EQ(sorted, all);
  }
}

TEST_F(Records, SplitsByPrompt) {
  std::shared_ptr<const PreferenceDataset> dataset = open_preference_data({folder_ / "plain.parquet"});
  const DatasetSplit split = split_by_prompt(dataset, 0.3, 7);
  EXPECT_EQ(split.train->size() + split.eval->size(), dataset->size());
  std::set<std::string> train;
  std::set<std::string> eval;
  for (int64_t i = 0; i < split.train->size(); ++i) train.insert(split.train->prompt(i));
  for (int64_t i = 0; i < split.eval->size(); ++i) {
    eval.insert(split.eval->prompt(i));
    EXPECT_EQ(split.eval->read(i).index, i);
    EXPECT_EQ(split.eval->read(i).prompt, split.eval->prompt(i));
  }
  for (const auto& prompt : eval) EXPECT_FALSE(train.contains(prompt)) << prompt;
  EXPECT_EQ(static_cast<int64_t>(eval.size()), split.eval->summary().prompts);
  EXPECT_EQ(eval.size(), 3u);  // of nine
  EXPECT_EQ(split.train->epoch_order(1, 1).size(), static_cast<size_t>(split.train->size()));
  std::set<std::string> other;
  const DatasetSplit another = split_by_prompt(dataset, 0.3, 8);
  for (int64_t i = 0; i < another.eval->size(); ++i) other.insert(another.eval->prompt(i));
  EXPECT_NE(eval, other);
  error_message(ErrorClass::kUsage, [&] { split_by_prompt(dataset, 1.0, 7); });
}

TEST(SegmentCache, ForgetsTheLeastRecentlyUsed) {
  SegmentCache cache(250);
  const auto put = [&](int64_t n) {
    cache.insert({.segment = n}, std::make_shared<Segment>(Segment{.num_bytes = 100}));
  };
  put(0);
  put(1);
  EXPECT_NE(cache.find({.segment = 0}), nullptr);
  put(2);
  EXPECT_NE(cache.find({.segment = 0}), nullptr);
  EXPECT_EQ(cache.find({.segment = 1}), nullptr);
  EXPECT_LE(cache.num_bytes(), 250);
}

TEST(GroupRules, RankTiesShareTheirMeanPlace) {
  EXPECT_EQ(average_ranks({3, 1, 3, 7}), (std::vector<double>{1.5, 0, 1.5, 3}));
  EXPECT_EQ(win_shares({1, 1}), (std::vector<double>{0.5, 0.5}));
  EXPECT_EQ(win_shares({2, 1, 3}), (std::vector<double>{0.5, 1, 0}));
}

TEST(GroupRules, ThinKeepsBestAndWorst) {
  for (size_t count = 2; count < 12; ++count) {
    for (size_t size = 2; size <= count; ++size) {
      GroupPlan group;
      for (size_t i = 0; i < count; ++i) {
        group.push_back({.item = static_cast<uint16_t>(i), .rank = static_cast<float>(i)});
      }
      thin_group(group, size);
      ASSERT_EQ(group.size(), size);
      EXPECT_EQ(group.front().item, 0);
      EXPECT_EQ(group.back().item, count - 1);
      for (size_t i = 0; i + 1 < size; ++i) EXPECT_LT(group[i].item, group[i + 1].item);
      EXPECT_EQ(group.back().rank, static_cast<float>(size - 1));
    }
  }
}

TEST(BadLimit, ParsesCountsAndShares) {
  EXPECT_TRUE(parse_bad_limit("3").is_exceeded(4, 1000000));
  EXPECT_FALSE(parse_bad_limit("3").is_exceeded(3, 4));
  EXPECT_TRUE(parse_bad_limit("0.5%").is_exceeded(6, 1000));
  EXPECT_FALSE(parse_bad_limit("0.5%").is_exceeded(5, 1000));
  for (const char* text : {"", "x", "-1", "1.5", "5%%", "101%", "nan", "3 "}) {
    error_message(ErrorClass::kUsage, [&] { parse_bad_limit(text); });
  }
}

}  // namespace
}  // namespace prefusion::data
