#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "core/atomic_file.h"
#include "core/safetensors.h"
#include "tests/support/temp_dir.h"
#include "tests/tools/inspect_reference.h"
#include "tools/inspection.h"
#include "training/checkpoint.h"

namespace prefusion::tools {
namespace {

namespace fs = std::filesystem;

bool mentions(const std::vector<std::string>& lines, const std::string& text) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

OrderedJson component(const Inspection& inspection, const std::string& name) {
  for (const auto& row : inspection.facts.at("components")) {
    if (row.at("name") == name) return row;
  }
  return OrderedJson::object();
}

class InspectTest : public testing::Test {
 protected:
  // A copy of the model that a test may damage.
  fs::path copy_of_model() {
    fs::copy(reference / "model", folder / "model", fs::copy_options::recursive);
    return folder / "model";
  }

  const fs::path& reference = tests::inspect_reference();
  tests::TempDir folder;
};

TEST_F(InspectTest, ModelFromDiffusersIsSound) {
  const Inspection found = inspect_model(reference / "model");
  EXPECT_TRUE(found.sound()) << found.problems.front();
  EXPECT_EQ(found.facts.at("class"), "StableDiffusionPipeline");
  EXPECT_EQ(found.facts.at("components").size(), 5u);
  const TensorMap weights = read_weights(reference / "model" / "unet", "diffusion_pytorch_model");
  int64_t parameters = 0;
  for (const auto& [name, tensor] : weights) parameters += tensor.numel();
  EXPECT_EQ(component(found, "unet").at("parameters"), parameters);
  EXPECT_EQ(component(found, "unet").at("dtype"), "F32");
  for (const char* name : {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}) {
    EXPECT_EQ(component(found, name).at("state"), "ok") << name;
  }
  const std::string text = to_text(found);
  EXPECT_NE(text.find("model, sound"), std::string::npos) << text;
  EXPECT_NE(text.find("UNet2DConditionModel"), std::string::npos) << text;
}

TEST_F(InspectTest, ModelWithDamagedWeightsIsNotSound) {
  const fs::path model = copy_of_model();
  TensorMap weights = read_weights(model / "unet", "diffusion_pytorch_model");
  for (auto& [name, tensor] : weights) tensor = tensor.clone();
  weights.erase("conv_in.bias");
  weights["conv_out.bias"][0] = std::nan("");
  fs::remove(model / "unet" / "diffusion_pytorch_model.safetensors");
  write_safetensors(model / "unet" / "diffusion_pytorch_model.safetensors", weights);
  fs::resize_file(model / "vae" / "diffusion_pytorch_model.safetensors", 1000);
  fs::remove_all(model / "tokenizer");

  const Inspection found = inspect_model(model);
  EXPECT_TRUE(mentions(found.problems, "conv_in.bias"));
  EXPECT_TRUE(mentions(found.problems, "not finite: conv_out.bias"));
  EXPECT_TRUE(mentions(found.problems, "vae"));
  EXPECT_TRUE(mentions(found.problems, "tokenizer"));
  EXPECT_EQ(component(found, "unet").at("state"), "unsound");
  EXPECT_EQ(component(found, "text_encoder").at("state"), "ok");
}

TEST_F(InspectTest, ComponentFolderIsInspectedByItself) {
  const Inspection found = inspect_component(reference / "model" / "text_encoder");
  EXPECT_TRUE(found.sound());
  EXPECT_EQ(found.facts.at("class"), "CLIPTextModel");
  const Inspection other = inspect_component(reference / "model" / "tokenizer");
  EXPECT_FALSE(other.sound());
}

TEST_F(InspectTest, LoraIsDescribedAndMatched) {
  const Inspection found = inspect_lora(reference / "lora", reference / "model");
  EXPECT_TRUE(found.sound()) << found.problems.front();
  const auto& facts = found.facts;
  EXPECT_EQ(facts.at("dialect"), "diffusers");
  EXPECT_EQ(facts.at("ranks").size(), 1u);
  EXPECT_EQ(facts.at("ranks").at("4"), facts.at("modules"));
  EXPECT_EQ(facts.at("alphas").at("8"), facts.at("modules"));
  EXPECT_EQ(facts.at("target_modules"), OrderedJson({"to_out.0", "to_q"}));
  EXPECT_EQ(facts.at("matched_modules").get<int>(), facts.at("modules").get<int>() - 1);
  EXPECT_EQ(facts.at("unmatched_keys"),
            OrderedJson({"unet.nowhere.to_q.lora_A.weight", "unet.nowhere.to_q.lora_B.weight"}));
  EXPECT_TRUE(mentions(found.notes, "2 keys fit no layer"));
}

TEST_F(InspectTest, LoraThatFitsNothingIsNotSound) {
  write_safetensors(folder / "lora.safetensors",
                    {{"unet.x.lora_A.weight", at::ones({2, 4})}, {"unet.x.lora_B.weight", at::zeros({6, 2})}});
  const Inspection alone = inspect_lora(folder / "lora.safetensors", "");
  EXPECT_TRUE(alone.sound());
  EXPECT_TRUE(mentions(alone.notes, "untrained"));
  EXPECT_FALSE(inspect_lora(folder / "lora.safetensors", reference / "model").sound());
}

class InspectRunTest : public testing::Test {
 protected:
  void write_run() {
    write_file(folder / "run.toml", "objective = \"diffusion-dpo\"\nsteps = 20\nbeta = 5000.0\n");
    write_file(folder / "metrics.jsonl",
               "{\"step\": 10, \"loss\": 0.7}\n{\"step\": 20, \"loss\": 0.5, \"accuracy\": 0.75}\n");
    training::Checkpoint checkpoint;
    checkpoint.step = 20;
    checkpoint.tensors["optimizer"] = {{"x", at::ones({3, 5})}};
    training::save_checkpoint(folder.path(), checkpoint, 0);
  }
  tests::TempDir folder;
};

TEST_F(InspectRunTest, SaysHowFarTheRunIs) {
  write_run();
  const Inspection found = inspect_run(folder.path(), "");
  EXPECT_TRUE(found.sound()) << found.problems.front();
  EXPECT_EQ(found.facts.at("config").at("objective"), "diffusion-dpo");
  EXPECT_EQ(found.facts.at("metrics").at("rows"), 2);
  EXPECT_EQ(found.facts.at("metrics").at("last_step"), 20);
  EXPECT_EQ(found.facts.at("metrics").at("last_accuracy"), 0.75);
  ASSERT_EQ(found.facts.at("checkpoints").size(), 1u);
  EXPECT_EQ(found.facts.at("checkpoints")[0].at("step"), 20);
  EXPECT_EQ(found.facts.at("checkpoints")[0].at("parameters"), 15);
  EXPECT_TRUE(mentions(found.notes, "no trained weights"));
}

TEST_F(InspectRunTest, TornLastLineIsANoteAndABrokenOneAProblem) {
  write_run();
  const std::string rows = read_file(folder / "metrics.jsonl");
  write_file(folder / "metrics.jsonl", rows + "{\"step\": 30, \"lo");
  const Inspection torn = inspect_run(folder.path(), "");
  EXPECT_TRUE(torn.sound());
  EXPECT_TRUE(mentions(torn.notes, "incomplete"));
  write_file(folder / "metrics.jsonl", rows + "nonsense\n{\"step\": 30, \"loss\": null}\n");
  const Inspection broken = inspect_run(folder.path(), "");
  EXPECT_TRUE(mentions(broken.problems, "1 lines are no metrics rows"));
  EXPECT_TRUE(mentions(broken.problems, "'loss' is not finite at step 30"));
}

TEST_F(InspectRunTest, DamagedCheckpointIsNamed) {
  write_run();
  fs::resize_file(folder / "checkpoints" / "step-000020" / "optimizer.safetensors", 40);
  EXPECT_TRUE(mentions(inspect_run(folder.path(), "").problems, "optimizer.safetensors"));
  write_file(folder / "checkpoints" / "step-000020" / "state.json", "{\"format\": 1, \"files\": 3}");
  EXPECT_FALSE(inspect_checkpoint(folder / "checkpoints" / "step-000020").sound());
}

TEST(Inspection, PrintsTablesAndUnits) {
  Inspection inspection{.path = "x", .kind = "model"};
  inspection.facts["total_bytes"] = 3 << 20;
  inspection.facts["components"] = {{{"name", "unet"}, {"parameters", 2500000}}, {{"name", "longer name"}}};
  inspection.notes.push_back("harmless");
  inspection.problems.push_back("broken");
  EXPECT_EQ(to_text(inspection),
            "x: model, not sound\n"
            "  total bytes: 3.0 MiB\n"
            "  components:\n"
            "    name         parameters\n"
            "    unet         2.50 M\n"
            "    longer name  -\n"
            "  note: harmless\n"
            "  problem: broken\n");
  const OrderedJson json = to_json(inspection);
  EXPECT_EQ(json.at("sound"), false);
  EXPECT_EQ(json.at("total_bytes"), 3 << 20);
}

}  // namespace
}  // namespace prefusion::tools
