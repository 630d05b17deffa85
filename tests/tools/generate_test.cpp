#include "tools/generate_images.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <opencv2/imgcodecs.hpp>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/logging.h"
#include "core/safetensors.h"
#include "images/image_encode.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"
#include "tools/contact_sheet.h"
#include "tools/png_text.h"

namespace prefusion::tools {
namespace {

at::Tensor read_rgb(const std::filesystem::path& file) {
  const cv::Mat bgr = cv::imread(file.string(), cv::IMREAD_COLOR);
  if (bgr.empty()) return at::empty({0});
  return at::from_blob(bgr.data, {bgr.rows, bgr.cols, 3}, at::kByte).flip({2}).clone();
}

double psnr(const at::Tensor& found, const at::Tensor& expected) {
  if (found.sizes() != expected.sizes()) return -1;
  const double error = (found.to(at::kDouble) - expected.to(at::kDouble)).square().mean().item<double>();
  return error == 0 ? INFINITY : 10 * std::log10(255.0 * 255.0 / error);
}

std::string text_of(const std::filesystem::path& file, const std::string& keyword) {
  for (const PngText& item : read_png_text(read_file(file))) {
    if (item.keyword == keyword) return item.text;
  }
  return "";
}

template <typename Function>
std::string error_of(ErrorClass expected, Function function) {
  try {
    function();
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), expected) << error.what();
    return error.what();
  }
  return "";
}

class GenerateReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = tests::run_reference_script("make_pipelines.py");
    cases_ = new Json(read_json(folder_ / "cases.json"));
    tensors_ = new TensorMap(read_safetensors(folder_ / "cases.safetensors"));
    set_log_level(LogLevel::kWarn);
  }
  static void TearDownTestSuite() {
    delete cases_;
    delete tensors_;
  }

  GenerateImagesOptions options() const {
    GenerateImagesOptions result;
    result.model = folder_ / "models/plain";
    result.sampling.num_inference_steps = 6;
    result.seed = 7;
    result.shows_progress = false;
    result.output = out_.path() / "pictures";
    return result;
  }

  tests::TempDir out_;
  inline static std::filesystem::path folder_;
  inline static Json* cases_ = nullptr;
  inline static TensorMap* tensors_ = nullptr;
};

TEST_F(GenerateReference, LorasEqualDiffusers) {
  int count = 0;
  for (const Json& item : *cases_) {
    if (item["loras"].empty()) continue;
    SCOPED_TRACE(item.dump());
    GenerateImagesOptions o = options();
    o.model = folder_ / "models" / item["model"].get<std::string>();
    o.prompt = item["prompt"];
    o.output = out_ / "one.png";
    for (const Json& lora : item["loras"]) {
      o.loras.push_back(concat((folder_ / "loras" / lora[0].get<std::string>()).string(), ":", lora[1].get<double>()));
    }
    generate_images(o);
    EXPECT_GT(psnr(read_rgb(o.output), tensors_->at(item["key"].get<std::string>() + ".image")), 50.0);
    EXPECT_EQ(parse_json(text_of(o.output, "prefusion"), "png")["loras"].size(), item["loras"].size());
    ++count;
  }
  EXPECT_EQ(count, 3);
}

TEST_F(GenerateReference, NumImagesCountSeedsUpAndFilesSortInOrder) {
  GenerateImagesOptions o = options();
  write_file(out_ / "prompts.txt", "\xEF\xBB\xBFtwo yellow stars\r\n\r\n   \na blue square");
  o.prompts_file = out_ / "prompts.txt";
  o.num_images = 3;
  o.seed = 100;
  o.batch_size = 4;  // a batch across prompts
  o.sampling.scheduler = "euler-ancestral";
  const std::vector<std::filesystem::path> files = generate_images(o);
  ASSERT_EQ(files.size(), 6u);
  EXPECT_TRUE(std::is_sorted(files.begin(), files.end()));
  EXPECT_EQ(files[0].filename(), "00000-000.png");
  EXPECT_EQ(files[5].filename(), "00001-002.png");
  size_t i = 0;
  for (const Json& item : *cases_) {
    if (!item.contains("group")) continue;
    EXPECT_GT(psnr(read_rgb(files[i]), tensors_->at(item["key"].get<std::string>() + ".image")), 50.0) << i;
    ++i;
  }
  EXPECT_EQ(i, 3u);
  EXPECT_EQ(parse_json(text_of(files[4], "prefusion"), "png")["seed"], 101);
}

TEST_F(GenerateReference, WritesItsSettingsIntoThePng) {
  GenerateImagesOptions o = options();
  o.prompt = "schöne Häuser 红色";
  o.negative_prompt = "dogs";
  o.output = out_ / "one.png";
  o.sampling.height_px = 40;
  o.sampling.width_px = 72;
  generate_images(o);
  const Json json = parse_json(text_of(o.output, "prefusion"), "png");
  EXPECT_EQ(json["prompt"], *o.prompt);
  EXPECT_EQ(json["scheduler"], "pndm");
  EXPECT_EQ(json["steps"], 6);
  EXPECT_EQ(json["model"], "plain");
  EXPECT_EQ(text_of(o.output, "parameters"),
            "schöne Häuser 红色\nNegative prompt: dogs\nSteps: 6, Sampler: pndm, CFG scale: 7.5, Seed: 7, Size: 72x40, "
            "Model: plain");
  EXPECT_EQ(read_rgb(o.output).sizes(), (at::IntArrayRef{40, 72, 3}));
}

TEST_F(GenerateReference, ResumeKeepsOnlyPicturesOfTheSameSettings) {
  GenerateImagesOptions o = options();
  o.prompt = "a red circle";
  o.num_images = 2;
  o.sampling.num_inference_steps = 1;
  const auto files = generate_images(o);
  const std::string whole = read_file(files[0]);
  const auto mark = std::filesystem::file_time_type::clock::now() - std::chrono::hours(1);
  for (const auto& file : files) std::filesystem::last_write_time(file, mark);
  std::filesystem::resize_file(files[1], 40);
  o.resume = true;
  generate_images(o);
  EXPECT_EQ(std::filesystem::last_write_time(files[0]), mark);
  EXPECT_NE(std::filesystem::last_write_time(files[1]), mark);
  o.sampling.guidance.scale = 3;
  generate_images(o);
  EXPECT_NE(std::filesystem::last_write_time(files[0]), mark);
  o.sampling.guidance.scale = 7.5;
  o.resume = false;
  generate_images(o);
  EXPECT_EQ(read_file(files[0]), whole);
}

TEST_F(GenerateReference, JsonLinesSetSeedAndNegativePrompt) {
  GenerateImagesOptions o = options();
  write_file(out_ / "p.jsonl",
             "{\"prompt\": \"x\", \"seed\": 5, \"negative_prompt\": \"n\", \"tag\": 1}\n\n{\"prompt\": \"y\"}\n");
  o.prompts_file = out_ / "p.jsonl";
  o.negative_prompt = "m";
  const auto jobs = plan_pictures(o, data::read_prompts(o.prompts_file));
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs[0].request.seed, 5u);
  EXPECT_EQ(jobs[0].request.negative_prompt, "n");
  EXPECT_EQ(jobs[1].request.seed, 7u);
  EXPECT_EQ(jobs[1].request.negative_prompt, "m");
}

TEST_F(GenerateReference, ContactSheetShowsAllPictures) {
  GenerateImagesOptions o = options();
  o.prompt = "a red circle left of a blue square, highly detailed, über";
  o.num_images = 3;
  o.sampling.num_inference_steps = 1;
  o.contact_sheet = out_ / "sheet.png";
  const auto files = generate_images(o);
  const at::Tensor sheet = read_rgb(o.contact_sheet);
  ASSERT_EQ(sheet.dim(), 3);
  EXPECT_EQ(sheet.size(1), 3 * (64 + 6) + 6);
  EXPECT_TRUE(at::equal(sheet.narrow(0, 6, 64).narrow(1, 6 + 2 * 70, 64), read_rgb(files[2])));
}

TEST_F(GenerateReference, RefusesWhatCannotBe) {
  GenerateImagesOptions o = options();
  const auto usage = [&] { return error_of(ErrorClass::kUsage, [&] { generate_images(o); }); };
  EXPECT_NE(usage().find("--prompt"), std::string::npos);
  o.prompt = "x";
  o.num_images = 2;
  o.output = out_ / "one.png";
  EXPECT_NE(usage().find("single file"), std::string::npos);
  o.num_images = 1;
  o.output = out_ / "one.jpg";
  EXPECT_NE(usage().find("PNG"), std::string::npos);
  o = options();
  o.prompt = "x";
  o.sampling.height_px = 100;
  EXPECT_NE(usage().find("--height 100"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(o.output));
  o = options();
  o.prompt = "x";
  o.loras = {"a.safetensors:strong"};
  EXPECT_NE(usage().find("strong"), std::string::npos);
  o.loras = {(out_ / "absent.safetensors").string()};
  EXPECT_NE(error_of(ErrorClass::kInput, [&] { generate_images(o); }).find("absent.safetensors"), std::string::npos);
  o = options();
  o.prompt = "x";
  o.model = out_ / "nowhere";
  EXPECT_NE(error_of(ErrorClass::kInput, [&] { generate_images(o); }).find("nowhere"), std::string::npos);
}

TEST(PromptList, RefusesBrokenFiles) {
  const tests::TempDir folder;
  const auto error_for = [&](const std::string& name, const std::string& text) {
    write_file(folder / name, text);
    return error_of(ErrorClass::kInput, [&] { data::read_prompts(folder / name); });
  };
  EXPECT_NE(error_for("a.txt", "\n  \r\n").find("no prompt"), std::string::npos);
  EXPECT_NE(error_for("a.jsonl", "{\"prompt\": \"x\"}\n{\"text\": \"y\"}").find("line 2"), std::string::npos);
  EXPECT_NE(error_for("b.jsonl", "{\"prompt\": 3}").find("prompt"), std::string::npos);
  EXPECT_NE(error_for("c.jsonl", "{\"prompt\": \"x\", \"seed\": -1}").find("seed"), std::string::npos);
  EXPECT_NE(error_for("d.jsonl", "[\"x\"]").find("line 1"), std::string::npos);
  EXPECT_NE(error_for("e.json", "[]").find(".jsonl"), std::string::npos);
  error_of(ErrorClass::kInput, [&] { data::read_prompts(folder / "absent.txt"); });
}

TEST(LoraArgument, SplitsTheScaleOff) {
  EXPECT_EQ(parse_lora_argument("a/b.safetensors").scale, 1.0);
  EXPECT_EQ(parse_lora_argument("a/b.safetensors:-0.25").scale, -0.25);
  EXPECT_EQ(parse_lora_argument("a:b:0.5").path, "a:b");
  const tests::TempDir folder;
  write_file(folder / "x:2", "");
  EXPECT_EQ(parse_lora_argument((folder / "x:2").string()).scale, 1.0);
  EXPECT_EQ(parse_lora_argument((folder / "x:2").string() + ":3").scale, 3.0);
}

TEST(UserArgument, IsAListOfNamesAndWeights) {
  const auto users = parse_user_argument("anna,bert:0.25,17:-1,a:b,c:d:2");
  ASSERT_EQ(users.size(), 5u);
  EXPECT_EQ(users[0].name, "anna");
  EXPECT_EQ(users[0].weight, 1.0);
  EXPECT_EQ(users[1].name, "bert");
  EXPECT_EQ(users[1].weight, 0.25);
  EXPECT_EQ(users[2].weight, -1.0);
  EXPECT_EQ(users[3].name, "a:b");
  EXPECT_EQ(users[4].name, "c:d");
  EXPECT_EQ(users[4].weight, 2.0);
  for (const char* text : {"anna,,bert", ":2"}) {
    error_of(ErrorClass::kUsage, [&] { parse_user_argument(text); });
  }
}

TEST(FileNames, GrowWithTheNumberOfPictures) {
  GenerateImagesOptions o;
  o.output = "out";
  o.num_images = 1001;
  const auto jobs = plan_pictures(o, {data::PromptEntry{.prompt = "x"}});
  EXPECT_EQ(jobs[999].file, "out/00000-0999.png");
  EXPECT_EQ(jobs[1000].file, "out/00000-1000.png");
}

TEST(PngText, RoundTripsLatinAndUnicode) {
  const std::string png = images::encode_png(at::zeros({2, 3, 3}, at::kByte));
  const std::string long_text(100000, 'x');
  const std::string marked =
      insert_png_text(png, {{"parameters", "schöne\nHäuser"}, {"prefusion", "红色 \"q\""}, {"long", long_text}});
  const auto texts = read_png_text(marked);
  ASSERT_EQ(texts.size(), 3u);
  EXPECT_EQ(texts[0].text, "schöne\nHäuser");
  EXPECT_EQ(texts[1].keyword, "prefusion");
  EXPECT_EQ(texts[1].text, "红色 \"q\"");
  EXPECT_EQ(texts[2].text, long_text);
  EXPECT_NE(marked.find("tEXtparameters"), std::string::npos);
  EXPECT_NE(marked.find("iTXtprefusion"), std::string::npos);
  const cv::Mat decoded = cv::imdecode(std::vector<char>(marked.begin(), marked.end()), cv::IMREAD_COLOR);
  EXPECT_EQ(decoded.size(), cv::Size(3, 2));
}

TEST(PngText, SurvivesBrokenFiles) {
  const std::string marked = insert_png_text(images::encode_png(at::zeros({2, 3, 3}, at::kByte)), {{"a", "b"}});
  for (size_t size = 0; size < marked.size(); ++size) EXPECT_LE(read_png_text(marked.substr(0, size)).size(), 1u);
  std::string flipped = marked;
  flipped[marked.find("tEXta") + 6] ^= 1;
  EXPECT_TRUE(read_png_text(flipped).empty());
  EXPECT_THROW(insert_png_text("no png", {}), Error);
}

}  // namespace
}  // namespace prefusion::tools
