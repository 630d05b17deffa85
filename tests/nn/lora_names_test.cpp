#include <gtest/gtest.h>

#include "core/error.h"
#include "nn/lora_names.h"

namespace prefusion::nn {
namespace {

struct Expected {
  const char* key;
  LoraComponent component;
  const char* module;
  LoraPart part;
  LoraDialect dialect;
};

TEST(LoraKey, IsReadInEveryDialect) {
  const Expected cases[] = {
      {"unet.mid_block.attentions.0.proj_in.lora_A.weight", LoraComponent::kUnet, "mid_block.attentions.0.proj_in",
       LoraPart::kA, LoraDialect::kDiffusers},
      {"unet.conv_in.lora_B.default.weight", LoraComponent::kUnet, "conv_in", LoraPart::kB, LoraDialect::kDiffusers},
      {"base_model.model.conv_in.lora_A.weight", LoraComponent::kUnet, "conv_in", LoraPart::kA, LoraDialect::kPeft},
      {"base_model.model.unet.conv_in.lora_A.weight", LoraComponent::kUnet, "conv_in", LoraPart::kA,
       LoraDialect::kPeft},
      {"text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight", LoraComponent::kTextEncoder2,
       "text_model.encoder.layers.0.mlp.fc1", LoraPart::kB, LoraDialect::kDiffusersOld},
      {"text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.down.weight", LoraComponent::kTextEncoder,
       "text_model.encoder.layers.0.self_attn.out_proj", LoraPart::kA, LoraDialect::kDiffusersOld},
      {"unet.a.attn1.processor.to_out_lora.up.weight", LoraComponent::kUnet, "a.attn1.to_out.0", LoraPart::kB,
       LoraDialect::kDiffusersOld},
      {"a.attn1.processor.to_q_lora.down.weight", LoraComponent::kUnet, "a.attn1.to_q", LoraPart::kA,
       LoraDialect::kDiffusersOld},
      {"unet.a.proj_in.lora.down.weight", LoraComponent::kUnet, "a.proj_in", LoraPart::kA, LoraDialect::kDiffusersOld},
      {"lora_unet_conv_in.lora_down.weight", LoraComponent::kUnet, "conv_in", LoraPart::kA, LoraDialect::kKohya},
      {"transformer.transformer_blocks.3.attn.add_q_proj.lora_A.weight", LoraComponent::kTransformer,
       "transformer_blocks.3.attn.add_q_proj", LoraPart::kA, LoraDialect::kDiffusers},
      {"lora_transformer_proj_out.alpha", LoraComponent::kTransformer, "proj_out", LoraPart::kAlpha,
       LoraDialect::kKohya},
      {"lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", LoraComponent::kTextEncoder,
       "text_model_encoder_layers_0_mlp_fc1", LoraPart::kAlpha, LoraDialect::kKohya},
      {"lora_te2_x.lora_up.weight", LoraComponent::kTextEncoder2, "x", LoraPart::kB, LoraDialect::kKohya},
  };
  for (const auto& expected : cases) {
    const auto key = parse_lora_key(expected.key, "file");
    ASSERT_TRUE(key.has_value()) << expected.key;
    EXPECT_EQ(key->component, expected.component) << expected.key;
    EXPECT_EQ(key->module, expected.module) << expected.key;
    EXPECT_EQ(key->part, expected.part) << expected.key;
    EXPECT_EQ(key->dialect, expected.dialect) << expected.key;
  }
}

TEST(LoraKey, OfAnotherMethodIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"lora_unet_x.dora_scale", "DoRA"},
      {"unet.x.lora_magnitude_vector", "DoRA"},
      {"lora_unet_x.hada_w1_a", "LoHa"},
      {"lora_unet_x.lokr_w1", "LoKr"},
      {"lora_unet_x.lora_mid.weight", "lora_mid"},
      {"lora_unet_x.diff", "full difference"},
      {"unet.x.lora_B.bias", "biases"},
      {"unet.x.lora_B.default.bias", "biases"},
  };
  for (const auto& [key, method] : cases) {
    try {
      parse_lora_key(key, "file.safetensors");
      ADD_FAILURE() << key << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 3);
      EXPECT_NE(std::string(error.what()).find(method), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("file.safetensors"), std::string::npos) << error.what();
    }
  }
}

TEST(LoraKey, ThatIsNoPartOfALoraIsNothing) {
  EXPECT_FALSE(parse_lora_key("conv_in.weight", "file").has_value());
  EXPECT_FALSE(parse_lora_key("unet.conv_in.lora_A.a.b.weight", "file").has_value());
  EXPECT_FALSE(parse_lora_key(".lora_A.weight", "file").has_value());
}

TEST(LoraNameIndex, FindsUnderscoredNames) {
  const LoraNameIndex index({"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0", "conv_in"});
  EXPECT_EQ(index.find("down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"),
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0");
  EXPECT_EQ(index.find("conv_in"), "conv_in");
  EXPECT_EQ(index.find("conv_out"), std::nullopt);
}

TEST(LoraNameIndex, MindsNoTextModelPrefix) {
  const LoraNameIndex flattened({"encoder.layers.0.mlp.fc1"});
  const LoraNameIndex nested({"text_model.encoder.layers.0.mlp.fc1"});
  for (const char* name :
       {"text_model_encoder_layers_0_mlp_fc1", "text_model.encoder.layers.0.mlp.fc1", "encoder.layers.0.mlp.fc1"}) {
    EXPECT_EQ(flattened.find(name), "encoder.layers.0.mlp.fc1") << name;
    EXPECT_EQ(nested.find(name), "text_model.encoder.layers.0.mlp.fc1") << name;
  }
}

TEST(DiffusersBlockName, FollowsTheOriginalNumbering) {
  EXPECT_EQ(diffusers_block_name("input_blocks_1_1_proj_in", 2), "down_blocks_0_attentions_0_proj_in");
  EXPECT_EQ(diffusers_block_name("input_blocks_5_0_in_layers_2", 2), "down_blocks_1_resnets_1_conv1");
  EXPECT_EQ(diffusers_block_name("input_blocks_3_0_op", 2), "down_blocks_0_downsamplers_0_conv");
  EXPECT_EQ(diffusers_block_name("input_blocks_0_0", 2), "conv_in");
  EXPECT_EQ(diffusers_block_name("middle_block_0_emb_layers_1", 2), "mid_block_resnets_0_time_emb_proj");
  EXPECT_EQ(diffusers_block_name("middle_block_1_proj_out", 2), "mid_block_attentions_0_proj_out");
  EXPECT_EQ(diffusers_block_name("middle_block_2_out_layers_3", 2), "mid_block_resnets_1_conv2");
  EXPECT_EQ(diffusers_block_name("output_blocks_11_1_proj_in", 2), "up_blocks_3_attentions_2_proj_in");
  EXPECT_EQ(diffusers_block_name("output_blocks_0_0_skip_connection", 2), "up_blocks_0_resnets_0_conv_shortcut");
  EXPECT_EQ(diffusers_block_name("output_blocks_2_1_conv", 2), "up_blocks_0_upsamplers_0_conv");
  EXPECT_EQ(diffusers_block_name("output_blocks_5_2_conv", 2), "up_blocks_1_upsamplers_0_conv");
  EXPECT_EQ(diffusers_block_name("time_embed_2", 2), "time_embedding_linear_2");
  EXPECT_EQ(diffusers_block_name("down_blocks_0", 2), std::nullopt);
  EXPECT_EQ(diffusers_block_name("input_blocks_x", 2), std::nullopt);
}

}  // namespace
}  // namespace prefusion::nn
