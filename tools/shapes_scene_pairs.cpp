// Draws preference pairs of the shapes world for reward models (docs/train-reward.md): for each caption a picture of it
// and one of a caption that differs in a colour, a shape, the relation, who has which colour, or an object too many or
// too few. In Pick-a-Pic's layout; captions are training captions, never held out.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <set>
#include <string>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "data/parquet_writer.h"
#include "images/image_decode.h"
#include "images/image_encode.h"
#include "shapes/caption.h"
#include "shapes/checker.h"
#include "shapes/scene.h"
#include "tools/command.h"

namespace prefusion::tools {
namespace {

struct ScenePairsOptions : CommonOptions {
  std::filesystem::path output;
  int64_t num_pairs = 20000;
  std::filesystem::path exclude;
  std::filesystem::path right_wrong_of;
  std::filesystem::path test_output;
  double test_fraction = 0.25;
};

std::set<std::string> captions_of(const std::filesystem::path& path) {
  std::set<std::string> captions;
  if (path.empty()) return captions;
  const auto dataset = data::open_preference_data({path});
  for (int64_t i = 0; i < dataset->size(); ++i) captions.insert(dataset->prompt(i));
  return captions;
}

template <typename Values>
auto other_than(const typename Values::value_type& value, const Values& values, CounterRng& rng) {
  auto chosen = value;
  while (chosen == value) chosen = values[static_cast<size_t>(rng.below(static_cast<int64_t>(values.size())))];
  return chosen;
}

shapes::ObjectKind random_object(CounterRng& rng) {
  return {.colour = shapes::kColours[static_cast<size_t>(rng.below(6))],
          .shape = shapes::kShapes[static_cast<size_t>(rng.below(3))]};
}

// A caption one mistake away.
shapes::ParsedCaption with_mistake(const shapes::ParsedCaption& right, CounterRng& rng) {
  while (true) {
    shapes::ParsedCaption wrong = right;
    auto& objects = wrong.objects;
    const bool has_two = objects.size() == 2;
    auto& object = objects[static_cast<size_t>(rng.below(static_cast<int64_t>(objects.size())))];
    switch (rng.below(has_two ? 6 : 3)) {
      case 0: object.colour = other_than(object.colour, shapes::kColours, rng); break;
      case 1: object.shape = other_than(object.shape, shapes::kShapes, rng); break;
      case 2:
        if (has_two) {
          objects = {object};
          wrong.relation = shapes::Relation::kNone;
        } else {
          objects.push_back(random_object(rng));
          wrong.relation = shapes::kRelations[static_cast<size_t>(rng.below(4))];
        }
        break;
      case 3: wrong.relation = other_than(wrong.relation, shapes::kRelations, rng); break;
      case 4: std::swap(objects[0], objects[1]); break;
      default: std::swap(objects[0].colour, objects[1].colour); break;
    }
    const bool is_possible = objects.size() < 2 || !(objects[0] == objects[1]);
    if (is_possible && !(wrong == right)) return wrong;
  }
}

std::string drawn(const shapes::ParsedCaption& caption, CounterRng& rng) {
  return images::encode_png(shapes::render(shapes::scene_for_caption(caption, rng)));
}

void draw_pairs(const ScenePairsOptions& options) {
  const std::set<std::string> excluded = captions_of(options.exclude);
  data::PickapicWriter writer(options.output);
  Progress progress("drawing", options.num_pairs, "pair", !options.quiet);
  uint64_t draw = 0;
  for (int64_t i = 0; i < options.num_pairs; ++draw) {
    CounterRng rng({.seed = options.seed, .item = draw}, RandomPurpose::kScene);
    const shapes::ParsedCaption caption = shapes::sample_caption(rng);
    // Captions of one object are too few to be left out.
    if (caption.objects.size() > 1 && excluded.contains(shapes::caption_text(caption))) continue;
    const std::string right = drawn(caption, rng);
    const std::string wrong = drawn(with_mistake(caption, rng), rng);
    const bool right_is_first = rng.below(2) == 0;
    writer.add({.jpg_0 = right_is_first ? right : wrong,
                .jpg_1 = right_is_first ? wrong : right,
                .label_0 = right_is_first ? 1.0 : 0.0,
                .caption = shapes::caption_text(caption),
                .model_0 = "scene",
                .model_1 = "scene",
                .ranking_id = i});
    progress.update(++i);
    throw_if_interrupted();
  }
  writer.finish();
  std::printf("%s: %lld pairs\n", options.output.c_str(), static_cast<long long>(options.num_pairs));
}

bool is_right(const data::PreferenceItem& item, const std::string& caption) {
  return shapes::check(images::decode_image(item.encoded), caption).correct;
}

// The pairs of which the chosen picture is right and the other one wrong.
void select_pairs(const data::PreferenceDataset& dataset, const std::filesystem::path& output) {
  data::PickapicWriter writer(output);
  int64_t count = 0;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    throw_if_interrupted();
    const data::PreferenceRecord record = dataset.read(i);
    if (!is_right(record.items[0], record.prompt) || is_right(record.items[1], record.prompt)) continue;
    writer.add({.jpg_0 = record.items[0].encoded,
                .jpg_1 = record.items[1].encoded,
                .label_0 = 1,
                .caption = record.prompt,
                .model_0 = record.items[0].model,
                .model_1 = record.items[1].model,
                .ranking_id = count++});
  }
  writer.finish();
  std::printf("%s: %lld pairs\n", output.c_str(), static_cast<long long>(count));
}

void run(const ScenePairsOptions& options) {
  if (options.right_wrong_of.empty()) return draw_pairs(options);
  std::shared_ptr<const data::PreferenceDataset> all = data::open_preference_data({options.right_wrong_of});
  if (options.test_output.empty()) return select_pairs(*all, options.output);
  const data::DatasetSplit split = data::split_by_prompt(all, options.test_fraction, options.seed);
  select_pairs(*split.train, options.output);
  select_pairs(*split.eval, options.test_output);
}

}  // namespace
}  // namespace prefusion::tools

int main(int argc, char** argv) {
  using namespace prefusion;
  CLI::App app("Draws pairs of a right and a wrong picture of the shapes world, in Pick-a-Pic's layout");
  tools::ScenePairsOptions options;
  app.add_option("--output", options.output, "Parquet file to write")->required();
  app.add_option("--pairs", options.num_pairs, "Pairs")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--exclude", options.exclude, "Preferences whose captions of two objects are not drawn");
  app.add_option("--right-wrong-of", options.right_wrong_of, "Draw nothing: take the right-wrong pairs of this file");
  app.add_option("--test-output", options.test_output, "Where a share of its captions goes, with all their pairs");
  app.add_option("--test-fraction", options.test_fraction, "That share")->capture_default_str();
  tools::add_common_options(app, options);
  try {
    app.parse(argc, argv);
    tools::apply_common_options(options);
    tools::run(options);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.exit_code();
  } catch (const Interrupted& interrupted) {
    return interrupted.exit_code();
  }
  return 0;
}
