#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "layouts/network_layouts.h"
#include "layouts/single_file.h"

namespace prefusion::layouts {
namespace {

TensorSources sources(std::initializer_list<std::pair<const char*, at::Tensor>> tensors) {
  TensorSources result;
  for (const auto& [name, tensor] : tensors) result.emplace(name, tensor_source(tensor));
  return result;
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
    return error.what();
  }
  return "no error";
}

TEST(KeyMap, PlaceholdersStandForTheSameInBothColumns) {
  const KeyMap map({{"a.{}.b.{}.*", {"x.{}.y.{}.q.*", "x.{}.y.{}.k.*"}}});
  const auto match = map.from_original("a.3.b.12.weight");
  ASSERT_TRUE(match);
  EXPECT_EQ(match->diffusers, (std::vector<std::string>{"x.3.y.12.q.weight", "x.3.y.12.k.weight"}));
  const auto back = map.from_diffusers("x.3.y.12.k.weight");
  ASSERT_TRUE(back);
  EXPECT_EQ(back->original, "a.3.b.12.weight");
  EXPECT_EQ(back->part, 1U);
}

TEST(KeyMap, NumbersAreWhole) {
  const KeyMap map({{"a.1.*", {"x.1.*"}}, {"a.{}.end", {"x.{}.end"}}});
  EXPECT_FALSE(map.from_original("a.11.weight"));
  EXPECT_TRUE(map.from_original("a.11.end"));
  EXPECT_FALSE(map.from_original("a..end"));
  EXPECT_FALSE(map.from_original("a.b.end"));
}

TEST(Repack, PackedRowsComeApartInOrder) {
  const at::Tensor packed = at::arange(24).reshape({6, 4});
  const auto split =
      original_to_diffusers(sources({{"double_blocks.0.img_attn.qkv.weight", packed}}), flux_layout(2), "f");
  ASSERT_EQ(split.size(), 3U);
  EXPECT_TRUE(at::equal(split.at("transformer_blocks.0.attn.to_k.weight").load(), packed.narrow(0, 2, 2)));
  const auto back = diffusers_to_original(split, flux_layout(0), "f");
  EXPECT_TRUE(at::equal(back.at("double_blocks.0.img_attn.qkv.weight").load(), packed));
}

TEST(Repack, SingleBlocksOfFluxKeepTheRestForTheFeedForward) {
  const at::Tensor packed = at::arange(14);
  const auto split = original_to_diffusers(sources({{"single_blocks.7.linear1.bias", packed}}), flux_layout(2), "f");
  EXPECT_TRUE(at::equal(split.at("single_transformer_blocks.7.attn.to_v.bias").load(), packed.narrow(0, 4, 2)));
  EXPECT_TRUE(at::equal(split.at("single_transformer_blocks.7.proj_mlp.bias").load(), packed.narrow(0, 6, 8)));
}

TEST(Repack, ShiftAndScaleChangePlaces) {
  const at::Tensor rows = at::tensor({1, 2, 3, 4});
  const auto converted =
      original_to_diffusers(sources({{"final_layer.adaLN_modulation.1.bias", rows}}), flux_layout(2), "f");
  EXPECT_TRUE(at::equal(converted.at("norm_out.linear.bias").load(), at::tensor({3, 4, 1, 2})));
}

TEST(Repack, OnlyTheLastContextNormOfSd3IsSwapped) {
  const at::Tensor rows = at::tensor({1, 2, 3, 4});
  const auto converted =
      original_to_diffusers(sources({{"joint_blocks.0.context_block.adaLN_modulation.1.bias", rows},
                                     {"joint_blocks.1.context_block.adaLN_modulation.1.bias", rows}}),
                            sd3_layout(2), "f");
  EXPECT_TRUE(at::equal(converted.at("transformer_blocks.0.norm1_context.linear.bias").load(), rows));
  EXPECT_TRUE(
      at::equal(converted.at("transformer_blocks.1.norm1_context.linear.bias").load(), at::tensor({3, 4, 1, 2})));
}

TEST(Repack, OldNamesOfTheAutoencodersAttentionAreRead) {
  const auto original = diffusers_to_original(
      sources({{"encoder.mid_block.attentions.0.query.weight", at::ones({2, 2})}}), autoencoder_layout(2), "f");
  EXPECT_EQ(original.at("encoder.mid.attn_1.q.weight").shape, (std::vector<int64_t>{2, 2, 1, 1}));
}

TEST(Repack, UnknownNamesAreListed) {
  const auto text = message_of([] {
    original_to_diffusers(sources({{"double_blocks.0.extra", at::ones({2})}, {"img_in.weight", at::ones({2, 2})}}),
                          flux_layout(2), "file");
  });
  EXPECT_NE(text.find("file: 1 tensors belong to no layer"), std::string::npos) << text;
  EXPECT_NE(text.find("double_blocks.0.extra"), std::string::npos) << text;
}

TEST(Repack, MissingPartIsNamed) {
  const auto text = message_of([] {
    diffusers_to_original(sources({{"transformer_blocks.0.attn.to_q.weight", at::ones({2, 2})},
                                   {"transformer_blocks.0.attn.to_v.weight", at::ones({2, 2})}}),
                          flux_layout(2), "folder");
  });
  EXPECT_NE(text.find("'transformer_blocks.0.attn.to_k.weight' is missing"), std::string::npos) << text;
}

TEST(Repack, RowsThatCannotBeSharedAreRefused) {
  const auto text = message_of([] {
    original_to_diffusers(sources({{"double_blocks.0.img_attn.qkv.weight", at::ones({7, 2})}}), flux_layout(2), "f");
  });
  EXPECT_NE(text.find("7 rows"), std::string::npos) << text;
}

TEST(SingleFile, OtherArchitecturesAreNamed) {
  const auto refuses = [](const char* name, const char* mention) {
    const auto text = message_of([name] { detect_family(sources({{name, at::ones({2})}}), "file"); });
    EXPECT_NE(text.find(mention), std::string::npos) << text;
  };
  refuses("control_model.input_blocks.0.0.weight", "ControlNet");
  refuses("lora_unet_down_blocks_0.lora_up.weight", "LoRA");
  refuses("something.else", "is no single-file checkpoint");
}

TEST(SingleFile, LastBlockOfOpenClipIsLeftOutOfStableDiffusion2) {
  TensorSources tensors =
      sources({{"model.diffusion_model.input_blocks.0.0.weight", at::ones({2, 4, 3, 3})},
               {"model.diffusion_model.input_blocks.1.0.in_layers.2.weight", at::ones({2, 2, 3, 3})},
               {"model.diffusion_model.output_blocks.0.0.in_layers.2.weight", at::ones({2, 4, 3, 3})},
               {"model.diffusion_model.output_blocks.1.0.in_layers.2.weight", at::ones({2, 4, 3, 3})},
               {"cond_stage_model.model.text_projection", at::ones({2, 2})}});
  for (const int block : {0, 22, 23}) {
    tensors.emplace(concat("cond_stage_model.model.transformer.resblocks.", block, ".ln_1.weight"),
                    tensor_source(at::ones({2})));
  }
  const SingleFile file = split_single_file(tensors, {}, "file");
  EXPECT_EQ(file.family, Family::kSd2);
  const TensorSources& text = file.components.back().weights;
  EXPECT_TRUE(text.contains("text_model.encoder.layers.22.layer_norm1.weight"));
  EXPECT_FALSE(text.contains("text_model.encoder.layers.23.layer_norm1.weight"));
  EXPECT_FALSE(text.contains("text_projection.weight"));
  EXPECT_EQ(file.left_out.size(), 2U);
}

}  // namespace
}  // namespace prefusion::layouts
