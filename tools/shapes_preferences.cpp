// Makes assets/shapes-preferences.parquet: samples pictures from a model for training captions of the shapes world,
// judges them, and writes pairs in Pick-a-Pic's layout, or a ranked list a caption.
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "data/parquet_writer.h"
#include "tools/command.h"
#include "tools/picture_batches.h"
#include "tools/preference_pairs.h"

namespace prefusion::tools {
namespace {

struct PreferencesOptions : CommonOptions {
  std::filesystem::path model;
  std::filesystem::path output;
  int64_t num_captions = 1000;
  int64_t num_images = 4;  // a caption
  PictureBatchOptions batches = {.sampling = {.num_inference_steps = 15, .guidance = {.scale = 3}}, .batch_size = 32};
  std::string layout = "pairs";  // or lists
  std::string rule = "judge";
  double margin = shapes::kDefaultTasteMargin;
  double max_ties = 0.03;  // share of the rows
  std::string format = "jpeg";
  int quality = 95;  // JPEG
};

// A picture as it is stored and what the judge says of it.
struct Sample {
  std::string encoded;
  uint64_t seed = 0;
  shapes::Judgement judgement;
};

struct Counts {
  int64_t correctness = 0, taste = 0, ties = 0;
  int64_t total() const { return correctness + taste + ties; }
};

std::string encode(const at::Tensor& image, const PreferencesOptions& options) {
  const at::Tensor packed = image.contiguous();
  const cv::Mat rgb(static_cast<int>(packed.size(0)), static_cast<int>(packed.size(1)), CV_8UC3, packed.data_ptr());
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  std::vector<unsigned char> bytes;
  if (options.format == "png") {
    cv::imencode(".png", bgr, bytes, {cv::IMWRITE_PNG_COMPRESSION, 9});
  } else {
    cv::imencode(".jpg", bgr, bytes, {cv::IMWRITE_JPEG_QUALITY, options.quality, cv::IMWRITE_JPEG_OPTIMIZE, 1});
  }
  return {bytes.begin(), bytes.end()};
}

// Seeds of the pictures, spread over 32 bits, so that two runs with neighbouring seeds share none.
std::vector<pipelines::ImageRequest> plan_samples(const std::vector<std::string>& captions,
                                                  const PreferencesOptions& options) {
  std::vector<pipelines::ImageRequest> requests;
  for (size_t i = 0; i < captions.size(); ++i) {
    CounterRng rng({.seed = options.seed, .item = i}, RandomPurpose::kNoise);
    for (int64_t k = 0; k < options.num_images; ++k) requests.push_back({.prompt = captions[i], .seed = rng.bits()});
  }
  return requests;
}

std::string model_name(const PreferencesOptions& options) {
  return options.model.lexically_normal().filename().string();
}

// Turns the samples of one caption into rows, and the rows into a file.
class RowMaker {
 public:
  virtual ~RowMaker() = default;
  virtual void add(size_t caption_index, const std::string& caption, const std::vector<Sample>& samples) = 0;
  virtual std::string progress() const = 0;
  virtual std::string finish() = 0;  // -> what was written, in words
};

class PairMaker : public RowMaker {
 public:
  explicit PairMaker(const PreferencesOptions& options)
      : options_(options),
        rule_(parse_pair_rule(options.rule)),
        writer_(options.output),
        model_name_(model_name(options)) {}

  void add(size_t caption_index, const std::string& caption, const std::vector<Sample>& samples) override {
    std::vector<shapes::Judgement> judgements;
    for (const Sample& sample : samples) judgements.push_back(sample.judgement);
    CounterRng rng({.seed = options_.seed, .item = caption_index}, RandomPurpose::kShuffle);
    const std::vector<PicturePair> pairs = pair_up(judgements, rule_, options_.margin, rng);
    for (const PicturePair& pair : pairs) {
      if (!count(judgements[pair.first], judgements[pair.second], pair)) continue;
      writer_.add({.jpg_0 = samples[pair.first].encoded,
                   .jpg_1 = samples[pair.second].encoded,
                   .label_0 = pair.label_0,
                   .caption = caption,
                   .model_0 = model_name_,
                   .model_1 = model_name_,
                   .ranking_id = counts_.total() - 1,
                   .user_id = 0,
                   .num_example_per_prompt = static_cast<int64_t>(pairs.size())});
    }
  }

  std::string progress() const override { return concat(counts_.total(), " pairs"); }

  std::string finish() override {
    writer_.finish();
    return concat(counts_.total(), " pairs: ", counts_.correctness, " right against wrong, ", counts_.taste,
                  " by taste, ", counts_.ties, " ties");
  }

 private:
  // False for a tie that is one too many.
  bool count(const shapes::Judgement& first, const shapes::Judgement& second, const PicturePair& pair) {
    if (pair.label_0 == 0.5) {
      if (static_cast<double>(counts_.ties) >= options_.max_ties * static_cast<double>(counts_.total())) return false;
      ++counts_.ties;
    } else {
      ++(rule_ == PairRule::kJudge && first.correct != second.correct ? counts_.correctness : counts_.taste);
    }
    return true;
  }

  const PreferencesOptions& options_;
  PairRule rule_;
  data::PickapicWriter writer_;
  std::string model_name_;
  Counts counts_;
};

// All samples of a caption, ranked by what online objectives raise: correctness first, then taste.
class ListMaker : public RowMaker {
 public:
  explicit ListMaker(const PreferencesOptions& options) : writer_(options.output), model_name_(model_name(options)) {}

  void add(size_t /*caption_index*/, const std::string& caption, const std::vector<Sample>& samples) override {
    data::RankedRow row{.prompt = caption, .images = {}};
    for (const Sample& sample : samples) {
      double rank = 0;
      for (const Sample& other : samples) rank += reward(other) > reward(sample) ? 1.0 : 0.0;
      row.images.push_back({.image = sample.encoded,
                            .model = model_name_,
                            .seed = static_cast<int64_t>(sample.seed),
                            .scores = {{"shapes", reward(sample)}},
                            .rank = rank});
    }
    writer_.add(row);
  }

  std::string progress() const override { return concat(writer_.num_rows(), " lists"); }

  std::string finish() override {
    writer_.finish();
    return concat(writer_.num_rows(), " lists");
  }

 private:
  static double reward(const Sample& sample) { return 2.0 * sample.judgement.correct + sample.judgement.taste; }

  data::RankedListWriter writer_;
  std::string model_name_;
};

std::unique_ptr<RowMaker> make_row_maker(const PreferencesOptions& options) {
  if (options.layout == "lists") return std::make_unique<ListMaker>(options);
  return std::make_unique<PairMaker>(options);
}

void make_preferences(const PreferencesOptions& options) {
  check_usage(options.num_images >= 2, "--num-images must be at least 2, found ", options.num_images);
  parse_pair_rule(options.rule);
  const std::vector<std::string> captions = training_captions(options.num_captions, options.seed);
  const std::vector<pipelines::ImageRequest> requests = plan_samples(captions, options);
  auto pipeline = pipelines::TextToImage::load(options.model, options.scalar_type(), options.torch_device());

  const auto rows = make_row_maker(options);
  Progress progress("sample", static_cast<int64_t>(requests.size()), "image", !options.quiet);
  std::vector<Sample> samples;
  int64_t num_correct = 0;
  const auto per_caption = static_cast<size_t>(options.num_images);
  generate_in_batches(pipeline, requests, options.batches, [&](size_t index, const at::Tensor& image) {
    const std::string& caption = requests[index].prompt;
    samples.push_back(
        {.encoded = encode(image, options), .seed = requests[index].seed, .judgement = shapes::judge(image, caption)});
    num_correct += samples.back().judgement.correct;
    if (samples.size() == per_caption) {
      rows->add(index / per_caption, caption, samples);
      samples.clear();
    }
    progress.update(static_cast<int64_t>(index) + 1, rows->progress());
  });
  std::printf("%s; %.1f %% of the pictures are right\n", rows->finish().c_str(),
              100.0 * static_cast<double>(num_correct) / static_cast<double>(requests.size()));
}

void add_options(CLI::App& app, PreferencesOptions& o) {
  auto& s = o.batches.sampling;
  app.add_option("--model", o.model, "Model folder to sample from")->required();
  app.add_option("--output", o.output, "Parquet file")->required();
  app.add_option("--captions", o.num_captions, "Training captions")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--num-images", o.num_images, "Pictures a caption")->capture_default_str();
  app.add_option("--steps", s.num_inference_steps, "Sampling steps")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--guidance-scale", s.guidance.scale, "Classifier-free guidance")->capture_default_str();
  app.add_option("--scheduler", s.scheduler, "Sampler; auto is the model's own")->capture_default_str();
  app.add_option("--batch-size", o.batches.batch_size, "Pictures at a time")->capture_default_str();
  app.add_option("--layout", o.layout, "pairs (Pick-a-Pic columns) or lists (all pictures of a caption, ranked)")
      ->capture_default_str()
      ->check(CLI::IsMember({"pairs", "lists"}));
  app.add_option("--rule", o.rule, "judge (correctness, then taste) or taste (alone)")->capture_default_str();
  app.add_option("--margin", o.margin, "Taste difference below which a pair is a tie")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-ties", o.max_ties, "Share of the rows that may be ties; further ones are left out")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--format", o.format, "jpeg or png")->capture_default_str()->check(CLI::IsMember({"jpeg", "png"}));
  app.add_option("--quality", o.quality, "Of the JPEG pictures, 1-100")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
}

}  // namespace

// Parses and runs; the exit code.
int shapes_preferences_main(int argc, char** argv) {
  CLI::App app("Samples preference pairs of the shapes world from a model", "shapes_preferences");
  PreferencesOptions options;
  add_options(app, options);
  add_common_options(app, options);
  try {
    app.parse(argc, argv);
    apply_common_options(options);
    make_preferences(options);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ErrorClass::kUsage);
  } catch (const Interrupted& interrupted) {
    return interrupted.exit_code();
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.exit_code();
  }
  return 0;
}

}  // namespace prefusion::tools

int main(int argc, char** argv) {
  return prefusion::tools::shapes_preferences_main(argc, argv);
}
