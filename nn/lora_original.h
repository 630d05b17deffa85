#pragma once

#include <string>
#include <vector>

#include "nn/lora_file.h"

// LoRAs of SD3 and FLUX under the names of the original code, as kohya's trainer
// ("lora_unet_double_blocks_0_img_attn_qkv") and ComfyUI ("diffusion_model.double_blocks.0.img_attn.qkv") write them:
// query, key and value are one layer there.
namespace prefusion::nn {

// The path of a layer whose dots were written as underscores: "transformer_blocks_0_attn_to_q" gives
// "transformer_blocks.0.attn.to_q". Names with dots stay as they are.
std::string dotted_name(const std::string& flat);

// Modules of the denoiser under original names of SD3 or FLUX become those of diffusers. The halves of a packed layer
// are shared by its parts: A whole and B by rows, or both by blocks where the layer was packed of independent parts. A
// part on which B has no effect is left out. Input error when the rows do not fit.
void expand_original_modules(LoraFile& file);

// The other way, for writing: diffusers' modules of SD3 or FLUX under the original names (with dots). Parts that share
// A and scale are stacked, others put in blocks, whose rank is the sum; a part that is not there gets zeros. `is_flux`
// says so where the names do not.
std::vector<LoraFileModule> original_modules(const std::vector<LoraFileModule>& modules, bool is_flux,
                                             const std::string& where);

// Whether modules of a denoiser are a transformer's (SD3, FLUX) rather than a UNet's.
bool is_transformer_lora(const std::vector<LoraFileModule>& modules);

}  // namespace prefusion::nn
