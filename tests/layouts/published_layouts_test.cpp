#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "layouts/infer_config.h"
#include "layouts/single_file.h"
#include "tests/support/python_reference.h"

namespace prefusion::layouts {
namespace {

// Shapes and configs of the published architectures, by family and component.
const Json& published() {
  static const Json json = read_json(tests::run_reference_script("make_single_files.py", {"shapes"}) / "shapes.json");
  return json;
}

Family family_of(const std::string& name) {
  if (name == "sd1") return Family::kSd1;
  if (name == "sd2") return Family::kSd2;
  if (name == "sdxl") return Family::kSdxl;
  if (name == "sdxl_refiner") return Family::kSdxlRefiner;
  return name == "flux" ? Family::kFlux : Family::kSd3;
}

// One network of a family with the shapes it has at full size. Nothing is ever loaded.
struct Network {
  std::string title;
  Family family;
  ComponentWeights component;
  Json config;
};

std::vector<Network> networks() {
  std::vector<Network> all;
  for (const auto& [name, components] : published().items()) {
    for (const auto& [folder, entry] : components.items()) {
      Network network{name + "/" + folder, family_of(name), {}, entry["config"]};
      for (const ComponentLayout& layout : family_info(network.family).components) {
        if (folder == layout.folder) network.component.layout = &layout;
      }
      for (const auto& [tensor, shape] : entry["shapes"].items()) {
        network.component.weights.emplace(tensor, TensorSource{at::kHalf, shape.get<std::vector<int64_t>>(), {}});
      }
      all.push_back(std::move(network));
    }
  }
  return all;
}

std::map<std::string, std::vector<int64_t>> shapes_of(const TensorSources& tensors) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& [name, source] : tensors) shapes[name] = source.shape;
  return shapes;
}

TEST(PublishedLayouts, EveryNameGoesThereAndBack) {
  for (const Network& network : networks()) {
    SCOPED_TRACE(network.title);
    const auto& [layout, weights] = network.component;
    const TensorSources original =
        diffusers_to_original(weights, layout_of_diffusers(*layout, weights, "folder"), "folder");
    const TensorSources back = original_to_diffusers(original, layout_of_original(*layout, original, "file"), "file");
    EXPECT_EQ(shapes_of(back), shapes_of(weights));
  }
}

TEST(PublishedLayouts, FilesHaveTheNamesTheFamilyIsKnownBy) {
  std::map<std::string, std::vector<ComponentWeights>> families;
  for (const Network& network : networks()) {
    families[network.title.substr(0, network.title.find('/'))].push_back(network.component);
  }
  const auto file_of = [&](const char* family) {
    auto components = families.at(family);
    return join_single_file(family_of(family), components, "folder");
  };
  // Names and shapes by which diffusers tells the families apart.
  const auto has = [](const TensorSources& file, const char* name, std::vector<int64_t> shape) {
    ASSERT_TRUE(file.contains(name)) << name;
    EXPECT_EQ(file.at(name).shape, shape) << name;
  };
  has(file_of("sd1"), "model.diffusion_model.output_blocks.11.0.skip_connection.weight", {320, 640, 1, 1});
  has(file_of("sd2"), "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight", {320, 1024});
  has(file_of("sd2"), "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight", {3072, 1024});
  has(file_of("sdxl"), "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias", {1280});
  has(file_of("sdxl"), "model.diffusion_model.output_blocks.2.2.conv.weight", {1280, 1280, 3, 3});
  has(file_of("sd3"), "model.diffusion_model.joint_blocks.23.context_block.adaLN_modulation.1.bias", {3072});
  has(file_of("flux"), "model.diffusion_model.single_blocks.37.linear1.weight", {21504, 3072});
  for (const char* family : {"sd1", "sd2", "sdxl", "sd3", "flux"}) {
    EXPECT_EQ(detect_family(file_of(family), "file"), family_of(family)) << family;
  }
}

TEST(PublishedLayouts, ConfigsReadOffTheShapesAreThePublishedOnes) {
  for (const Network& network : networks()) {
    SCOPED_TRACE(network.title);
    const auto& [layout, weights] = network.component;
    const Json found = infer_config(network.family, *layout, weights, "", "file");
    for (const auto& [key, value] : network.config.items()) {
      // SD 2's text encoder has no projection; the width of one means nothing.
      if (!found.contains(key)) ADD_FAILURE() << key << " is not inferred";
      EXPECT_EQ(found.value(key, Json()), value) << key;
    }
  }
}

}  // namespace
}  // namespace prefusion::layouts
