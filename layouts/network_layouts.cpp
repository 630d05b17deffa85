#include "layouts/network_layouts.h"

#include "core/error.h"

namespace prefusion::layouts {
namespace {

void add_resnet(std::vector<KeyRule>& rules, const std::string& original, const std::string& diffusers) {
  rules.push_back({original + ".nin_shortcut.*", {diffusers + ".conv_shortcut.*"}});
  rules.push_back({original + ".*", {diffusers + ".*"}});  // norm1, conv1, norm2, conv2
}

void add_mid_block(std::vector<KeyRule>& rules, const std::string& half) {
  add_resnet(rules, half + ".mid.block_1", half + ".mid_block.resnets.0");
  add_resnet(rules, half + ".mid.block_2", half + ".mid_block.resnets.1");
  const std::string original = half + ".mid.attn_1.";
  const std::string diffusers = half + ".mid_block.attentions.0.";
  rules.push_back({original + "norm.*", {diffusers + "group_norm.*"}});
  struct Projection {
    const char* original;
    const char* diffusers;
    const char* before_2023;  // read as well
  };
  constexpr Projection kProjections[] = {{"q.*", "to_q.*", "query.*"},
                                         {"k.*", "to_k.*", "key.*"},
                                         {"v.*", "to_v.*", "value.*"},
                                         {"proj_out.*", "to_out.0.*", "proj_attn.*"}};
  for (const auto& projection : kProjections) {
    for (const char* name : {projection.diffusers, projection.before_2023}) {
      rules.push_back({original + projection.original, {diffusers + name}, Change::kPointwiseConv});
    }
  }
}

}  // namespace

KeyMap autoencoder_layout(int64_t num_blocks) {
  std::vector<KeyRule> rules = {{"quant_conv.*", {"quant_conv.*"}}, {"post_quant_conv.*", {"post_quant_conv.*"}}};
  for (const std::string half : {"encoder", "decoder"}) {
    rules.push_back({half + ".conv_in.*", {half + ".conv_in.*"}});
    rules.push_back({half + ".conv_out.*", {half + ".conv_out.*"}});
    rules.push_back({half + ".norm_out.*", {half + ".conv_norm_out.*"}});
    add_mid_block(rules, half);
  }
  rules.push_back({"encoder.down.{}.downsample.conv.*", {"encoder.down_blocks.{}.downsamplers.0.conv.*"}});
  add_resnet(rules, "encoder.down.{}.block.{}", "encoder.down_blocks.{}.resnets.{}");
  // The original counts the decoder's blocks by their resolution, diffusers in the order they run.
  for (int64_t block = 0; block < num_blocks; ++block) {
    const std::string original = concat("decoder.up.", num_blocks - 1 - block);
    const std::string diffusers = concat("decoder.up_blocks.", block);
    rules.push_back({original + ".upsample.conv.*", {diffusers + ".upsamplers.0.conv.*"}});
    add_resnet(rules, original + ".block.{}", diffusers + ".resnets.{}");
  }
  return KeyMap(std::move(rules));
}

KeyMap transformers_layout() {
  return KeyMap({{"*", {"*"}}});
}

KeyMap open_clip_layout() {
  const std::string original = "transformer.resblocks.{}.";
  const std::string diffusers = "text_model.encoder.layers.{}.";
  std::vector<KeyRule> rules = {
      {"positional_embedding", {"text_model.embeddings.position_embedding.weight"}},
      {"token_embedding.weight", {"text_model.embeddings.token_embedding.weight"}},
      {"ln_final.*", {"text_model.final_layer_norm.*"}},
      {"text_projection", {"text_projection.weight"}, Change::kTranspose},
      {original + "ln_1.*", {diffusers + "layer_norm1.*"}},
      {original + "ln_2.*", {diffusers + "layer_norm2.*"}},
      {original + "mlp.c_fc.*", {diffusers + "mlp.fc1.*"}},
      {original + "mlp.c_proj.*", {diffusers + "mlp.fc2.*"}},
      {original + "attn.out_proj.*", {diffusers + "self_attn.out_proj.*"}},
  };
  for (const std::string kind : {"weight", "bias"}) {
    KeyRule rule{original + "attn.in_proj_" + kind, {}};
    for (const char* name : {"q_proj.", "k_proj.", "v_proj."}) {
      rule.diffusers.push_back(diffusers + "self_attn." + name + kind);
    }
    rules.push_back(std::move(rule));
  }
  return KeyMap(std::move(rules));
}

namespace {

// Query, key and value in one matrix, for weights and biases.
void add_packed(std::vector<KeyRule>& rules, const std::string& original, const std::vector<std::string>& diffusers,
                const std::vector<int64_t>& rows = {}) {
  KeyRule rule{original + ".*", {}, Change::kNone, rows};
  for (const auto& name : diffusers) rule.diffusers.push_back(name + ".*");
  rules.push_back(std::move(rule));
}

void add_all(std::vector<KeyRule>& rules, const std::string& original, const std::string& diffusers,
             std::initializer_list<std::pair<const char*, const char*>> names) {
  for (const auto& [ours, theirs] : names) rules.push_back({original + ours, {diffusers + theirs}});
}

}  // namespace

KeyMap sd3_layout(int64_t num_blocks) {
  std::vector<KeyRule> rules;
  add_all(rules, "", "",
          {{"pos_embed", "pos_embed.pos_embed"},
           {"x_embedder.proj.*", "pos_embed.proj.*"},
           {"t_embedder.mlp.0.*", "time_text_embed.timestep_embedder.linear_1.*"},
           {"t_embedder.mlp.2.*", "time_text_embed.timestep_embedder.linear_2.*"},
           {"y_embedder.mlp.0.*", "time_text_embed.text_embedder.linear_1.*"},
           {"y_embedder.mlp.2.*", "time_text_embed.text_embedder.linear_2.*"},
           {"context_embedder.*", "context_embedder.*"},
           {"final_layer.linear.*", "proj_out.*"}});
  rules.push_back({"final_layer.adaLN_modulation.1.*", {"norm_out.linear.*"}, Change::kSwapHalves});
  // The last block's context has a norm of shift and scale alone, which diffusers takes in the other order.
  rules.push_back({concat("joint_blocks.", num_blocks - 1, ".context_block.adaLN_modulation.1.*"),
                   {concat("transformer_blocks.", num_blocks - 1, ".norm1_context.linear.*")},
                   Change::kSwapHalves});
  const std::string block = "transformer_blocks.{}.";
  const std::string sample = "joint_blocks.{}.x_block.";
  const std::string context = "joint_blocks.{}.context_block.";
  add_packed(rules, sample + "attn.qkv", {block + "attn.to_q", block + "attn.to_k", block + "attn.to_v"});
  add_packed(rules, sample + "attn2.qkv", {block + "attn2.to_q", block + "attn2.to_k", block + "attn2.to_v"});
  add_packed(rules, context + "attn.qkv",
             {block + "attn.add_q_proj", block + "attn.add_k_proj", block + "attn.add_v_proj"});
  add_all(rules, sample, block,
          {{"attn.ln_q.*", "attn.norm_q.*"},
           {"attn.ln_k.*", "attn.norm_k.*"},
           {"attn.proj.*", "attn.to_out.0.*"},
           {"attn2.ln_q.*", "attn2.norm_q.*"},
           {"attn2.ln_k.*", "attn2.norm_k.*"},
           {"attn2.proj.*", "attn2.to_out.0.*"},
           {"adaLN_modulation.1.*", "norm1.linear.*"},
           {"mlp.fc1.*", "ff.net.0.proj.*"},
           {"mlp.fc2.*", "ff.net.2.*"}});
  add_all(rules, context, block,
          {{"attn.ln_q.*", "attn.norm_added_q.*"},
           {"attn.ln_k.*", "attn.norm_added_k.*"},
           {"attn.proj.*", "attn.to_add_out.*"},
           {"adaLN_modulation.1.*", "norm1_context.linear.*"},
           {"mlp.fc1.*", "ff_context.net.0.proj.*"},
           {"mlp.fc2.*", "ff_context.net.2.*"}});
  return KeyMap(std::move(rules));
}

KeyMap flux_layout(int64_t width) {
  std::vector<KeyRule> rules;
  add_all(rules, "", "",
          {{"time_in.in_layer.*", "time_text_embed.timestep_embedder.linear_1.*"},
           {"time_in.out_layer.*", "time_text_embed.timestep_embedder.linear_2.*"},
           {"vector_in.in_layer.*", "time_text_embed.text_embedder.linear_1.*"},
           {"vector_in.out_layer.*", "time_text_embed.text_embedder.linear_2.*"},
           {"guidance_in.in_layer.*", "time_text_embed.guidance_embedder.linear_1.*"},
           {"guidance_in.out_layer.*", "time_text_embed.guidance_embedder.linear_2.*"},
           {"txt_in.*", "context_embedder.*"},
           {"img_in.*", "x_embedder.*"},
           {"final_layer.linear.*", "proj_out.*"}});
  rules.push_back({"final_layer.adaLN_modulation.1.*", {"norm_out.linear.*"}, Change::kSwapHalves});
  const std::string block = "transformer_blocks.{}.";
  const std::string original = "double_blocks.{}.";
  add_packed(rules, original + "img_attn.qkv", {block + "attn.to_q", block + "attn.to_k", block + "attn.to_v"});
  add_packed(rules, original + "txt_attn.qkv",
             {block + "attn.add_q_proj", block + "attn.add_k_proj", block + "attn.add_v_proj"});
  add_all(rules, original, block,
          {{"img_attn.norm.query_norm.scale", "attn.norm_q.weight"},
           {"img_attn.norm.key_norm.scale", "attn.norm_k.weight"},
           {"txt_attn.norm.query_norm.scale", "attn.norm_added_q.weight"},
           {"txt_attn.norm.key_norm.scale", "attn.norm_added_k.weight"},
           {"img_attn.proj.*", "attn.to_out.0.*"},
           {"txt_attn.proj.*", "attn.to_add_out.*"},
           {"img_mod.lin.*", "norm1.linear.*"},
           {"txt_mod.lin.*", "norm1_context.linear.*"},
           {"img_mlp.0.*", "ff.net.0.proj.*"},
           {"img_mlp.2.*", "ff.net.2.*"},
           {"txt_mlp.0.*", "ff_context.net.0.proj.*"},
           {"txt_mlp.2.*", "ff_context.net.2.*"}});
  const std::string single = "single_transformer_blocks.{}.";
  const std::string single_original = "single_blocks.{}.";
  add_packed(rules, single_original + "linear1",
             {single + "attn.to_q", single + "attn.to_k", single + "attn.to_v", single + "proj_mlp"},
             {width, width, width, -1});
  add_all(rules, single_original, single,
          {{"norm.query_norm.scale", "attn.norm_q.weight"},
           {"norm.key_norm.scale", "attn.norm_k.weight"},
           {"linear2.*", "proj_out.*"},
           {"modulation.lin.*", "norm.linear.*"}});
  return KeyMap(std::move(rules));
}

}  // namespace prefusion::layouts
