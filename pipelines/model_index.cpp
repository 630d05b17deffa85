#include "pipelines/model_index.h"

#include "core/error.h"
#include "core/json_config.h"

namespace prefusion::pipelines {
namespace {

// The class of one entry, ["library", "ClassName"]; empty for [null, null].
std::string component_class(ConfigReader& reader, const std::string& name) {
  const Json& entry = reader.raw(name);
  check_input(!entry.is_null(), reader.where(), ": missing component '", name, "'");
  check_input(entry.is_array() && entry.size() == 2, reader.where(), ": component '", name,
              "' should be [\"library\", \"class\"], found ", entry.dump());
  return entry[1].is_string() ? entry[1].get<std::string>() : std::string();
}

void expect_class(ConfigReader& reader, const std::string& name, std::initializer_list<const char*> expected) {
  const std::string found = component_class(reader, name);
  for (const char* candidate : expected) {
    if (found == candidate) return;
  }
  fail_input(reader.where(), ": component '", name, "' of class \"", found, "\" is not supported (expected ",
             *expected.begin(), ")");
}

}  // namespace

ModelIndex read_model_index(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "model_index.json";
  check_input(std::filesystem::exists(path), path.string(),
              ": not found; expected a model folder in diffusers layout (model_index.json, unet/, vae/, text_encoder/, "
              "tokenizer/, scheduler/)");
  ConfigReader reader = ConfigReader::from_file(path);
  ModelIndex index;
  index.class_name = reader.require<std::string>("_class_name");
  check_input(index.class_name == "StableDiffusionPipeline", path.string(), ": pipeline class \"", index.class_name,
              "\" is not supported (expected StableDiffusionPipeline)");
  expect_class(reader, "unet", {"UNet2DConditionModel"});
  expect_class(reader, "vae", {"AutoencoderKL"});
  expect_class(reader, "text_encoder", {"CLIPTextModel", "CLIPTextModelWithProjection"});
  expect_class(reader, "tokenizer", {"CLIPTokenizer", "CLIPTokenizerFast"});
  index.scheduler_class = component_class(reader, "scheduler");
  reader.ignore({"safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker"});
  reader.finish();
  return index;
}

}  // namespace prefusion::pipelines
