#pragma once

#include "losses/objective.h"

// The reward of LongAlign ("Improving Long-Text Alignment for Text-to-Image Diffusion Models", arXiv 2410.11817) for
// back-propagation to the picture.
namespace prefusion::losses {

// The direction that the texts of a batch have in common: their mean at unit length. text [B, D] -> [D], constant
at::Tensor common_direction(const at::Tensor& text);

// image . (text - (1 - weight) * (text . direction) * direction): the score with its share along what all prompts have
// in common, which says nothing about this one, multiplied by `weight`. 1 is the plain score. text and image [B, D] at
// unit length (a text of several sentences is the mean of theirs), direction [D] -> [B], differentiable in `image`
at::Tensor decomposed_score(const at::Tensor& text, const at::Tensor& image, const at::Tensor& direction,
                            double weight);

// (1 - score) / 2 - 0.09 * (1 - weight) with weight = params "weight" 0.3; the last term keeps the scale of the loss
// when the common share is small, and has no gradient. score [B] -> [B]
at::Tensor longalign_loss(const at::Tensor& score, const ObjectiveParams& params);

}  // namespace prefusion::losses
