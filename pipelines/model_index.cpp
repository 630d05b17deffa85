#include "pipelines/model_index.h"

#include "core/error.h"
#include "core/json_config.h"
#include "text/class_label_encoder.h"

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

bool is_absent(ConfigReader& reader, const std::string& name) {
  const Json& entry = reader.raw(name);
  return entry.is_null() || (entry.is_array() && entry.size() == 2 && entry[1].is_null());
}

constexpr std::initializer_list<const char*> kClipTextModels = {"CLIPTextModel", "CLIPTextModelWithProjection"};
constexpr std::initializer_list<const char*> kClipTokenizers = {"CLIPTokenizer", "CLIPTokenizerFast"};
constexpr std::initializer_list<const char*> kT5Tokenizers = {"T5Tokenizer", "T5TokenizerFast"};

void expect_class(ConfigReader& reader, const std::string& name, std::initializer_list<const char*> expected) {
  const std::string found = component_class(reader, name);
  for (const char* candidate : expected) {
    if (found == candidate) return;
  }
  fail_input(reader.where(), ": component '", name, "' of class \"", found, "\" is not supported (expected ",
             *expected.begin(), ")");
}

// Components of StableDiffusionPipeline.
void read_stable_diffusion(ConfigReader& reader, ModelIndex&) {
  expect_class(reader, "unet", {"UNet2DConditionModel"});
  expect_class(reader, "vae", {"AutoencoderKL"});
  expect_class(reader, "text_encoder", kClipTextModels);
  expect_class(reader, "tokenizer", kClipTokenizers);
  reader.ignore({"safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker"});
}

// Components of StableDiffusionXLPipeline. The refiner's have no first text encoder.
void read_stable_diffusion_xl(ConfigReader& reader, ModelIndex& index) {
  expect_class(reader, "unet", {"UNet2DConditionModel"});
  expect_class(reader, "vae", {"AutoencoderKL"});
  index.has_first_encoder = !is_absent(reader, "text_encoder");
  if (index.has_first_encoder) {
    expect_class(reader, "text_encoder", kClipTextModels);
    expect_class(reader, "tokenizer", kClipTokenizers);
  }
  expect_class(reader, "text_encoder_2", {"CLIPTextModelWithProjection"});
  expect_class(reader, "tokenizer_2", kClipTokenizers);
  index.zeros_for_no_negative_prompt = reader.get<bool>("force_zeros_for_empty_prompt", true);
  // A watermark is drawn only where the package for it is installed; nothing here needs it.
  reader.ignore({"feature_extractor", "image_encoder", "add_watermarker", "tokenizer", "text_encoder"});
}

void read_stable_diffusion_3(ConfigReader& reader, ModelIndex& index) {
  expect_class(reader, "transformer", {"SD3Transformer2DModel"});
  expect_class(reader, "vae", {"AutoencoderKL"});
  for (const char* encoder : {"text_encoder", "text_encoder_2"}) {
    expect_class(reader, encoder, {"CLIPTextModelWithProjection"});
  }
  for (const char* tokenizer : {"tokenizer", "tokenizer_2"}) expect_class(reader, tokenizer, kClipTokenizers);
  index.has_t5 = !is_absent(reader, "text_encoder_3");
  if (index.has_t5) {
    expect_class(reader, "text_encoder_3", {"T5EncoderModel"});
    expect_class(reader, "tokenizer_3", kT5Tokenizers);
  }
  reader.ignore({"feature_extractor", "image_encoder", "tokenizer_3", "text_encoder_3"});
}

void read_flux(ConfigReader& reader, ModelIndex& index) {
  expect_class(reader, "transformer", {"FluxTransformer2DModel"});
  expect_class(reader, "vae", {"AutoencoderKL"});
  expect_class(reader, "text_encoder", kClipTextModels);
  expect_class(reader, "tokenizer", kClipTokenizers);
  expect_class(reader, "text_encoder_2", {"T5EncoderModel"});
  expect_class(reader, "tokenizer_2", kT5Tokenizers);
  index.has_t5 = true;
  reader.ignore({"feature_extractor", "image_encoder"});
}

void read_pixart(ConfigReader& reader, ModelIndex& index) {
  expect_class(reader, "transformer", {"PixArtTransformer2DModel", "Transformer2DModel"});
  expect_class(reader, "vae", {"AutoencoderKL"});
  expect_class(reader, "text_encoder", {"T5EncoderModel"});
  expect_class(reader, "tokenizer", kT5Tokenizers);
  index.has_t5 = true;
}

void read_dit(ConfigReader& reader, ModelIndex& index) {
  expect_class(reader, "transformer", {"DiTTransformer2DModel", "Transformer2DModel"});
  expect_class(reader, "vae", {"AutoencoderKL"});
  index.class_labels = text::class_labels(reader.raw("id2label"), reader.where());
}

void read_stable_diffusion_xl_from_picture(ConfigReader& reader, ModelIndex& index) {
  read_stable_diffusion_xl(reader, index);
  index.tells_aesthetic_score = reader.get<bool>("requires_aesthetics_score", false);
}

struct PipelineClass {
  const char* name;
  ModelFamily family;
  void (*read)(ConfigReader& reader, ModelIndex& index);
  PipelineUse use = PipelineUse::kTextToImage;
};
constexpr PipelineClass kClasses[] = {
    {"StableDiffusionPipeline", ModelFamily::kStableDiffusion, read_stable_diffusion},
    {"StableDiffusionXLPipeline", ModelFamily::kStableDiffusionXl, read_stable_diffusion_xl},
    {"StableDiffusion3Pipeline", ModelFamily::kStableDiffusion3, read_stable_diffusion_3},
    {"FluxPipeline", ModelFamily::kFlux, read_flux},
    {"PixArtAlphaPipeline", ModelFamily::kPixArtAlpha, read_pixart},
    {"PixArtSigmaPipeline", ModelFamily::kPixArtSigma, read_pixart},
    {"DiTPipeline", ModelFamily::kDit, read_dit},
    {"StableDiffusionImg2ImgPipeline", ModelFamily::kStableDiffusion, read_stable_diffusion, PipelineUse::kAny},
    {"StableDiffusionInpaintPipeline", ModelFamily::kStableDiffusion, read_stable_diffusion, PipelineUse::kAny},
    {"StableDiffusionXLImg2ImgPipeline", ModelFamily::kStableDiffusionXl, read_stable_diffusion_xl_from_picture,
     PipelineUse::kAny},
    {"StableDiffusionXLInpaintPipeline", ModelFamily::kStableDiffusionXl, read_stable_diffusion_xl_from_picture,
     PipelineUse::kAny},
    {"StableDiffusion3Img2ImgPipeline", ModelFamily::kStableDiffusion3, read_stable_diffusion_3, PipelineUse::kAny},
    {"StableDiffusion3InpaintPipeline", ModelFamily::kStableDiffusion3, read_stable_diffusion_3, PipelineUse::kAny},
    {"FluxImg2ImgPipeline", ModelFamily::kFlux, read_flux, PipelineUse::kAny},
    {"FluxInpaintPipeline", ModelFamily::kFlux, read_flux, PipelineUse::kAny},
    {"FluxFillPipeline", ModelFamily::kFlux, read_flux, PipelineUse::kAny},
};

const PipelineClass& find_class(const std::string& name, const std::string& where, PipelineUse use) {
  std::string known;
  for (const PipelineClass& entry : kClasses) {
    if (use == PipelineUse::kTextToImage && entry.use != use) continue;
    if (name == entry.name) return entry;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  fail_input(where, ": pipeline class \"", name, "\" is not supported (expected one of ", known, ")");
}

}  // namespace

ModelIndex read_model_index(const std::filesystem::path& model_dir, PipelineUse use) {
  const std::filesystem::path path = model_dir / "model_index.json";
  check_input(
      std::filesystem::exists(path), path.string(),
      ": not found; expected a model folder in diffusers layout (model_index.json, unet/ or transformer/, vae/, "
      "text_encoder/, tokenizer/, scheduler/)");
  ConfigReader reader = ConfigReader::from_file(path);
  ModelIndex index;
  index.class_name = reader.require<std::string>("_class_name");
  const PipelineClass& entry = find_class(index.class_name, path.string(), use);
  index.family = entry.family;
  entry.read(reader, index);
  index.scheduler_class = component_class(reader, "scheduler");
  reader.finish();
  return index;
}

}  // namespace prefusion::pipelines
