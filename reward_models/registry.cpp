#include "reward_models/registry.h"

#include <algorithm>
#include <sstream>

#include "core/error.h"
#include "reward_models/aesthetic_reward.h"
#include "reward_models/clip_rewards.h"
#include "reward_models/denscore.h"
#include "reward_models/image_reward.h"
#include "reward_models/mps.h"
#include "reward_models/shapes_reward.h"
#include "reward_models/trained_reward.h"

namespace prefusion::reward_models {

const std::vector<RewardKind>& reward_kinds() {
  static const std::vector<RewardKind> kKinds = {
      {.name = "pickscore",
       .path_help = "transformers CLIP folder",
       .summary = "exp(logit_scale) * cosine of prompt and picture",
       .options = "",
       .paper = "arXiv 2305.01569",
       .open = open_pickscore},
      {.name = "hpsv2",
       .path_help = "HPS_v2_compressed.pt, HPS_v2.1_compressed.pt, or another file or folder of open_clip",
       .summary = "cosine of prompt and picture (v2 and v2.1 have different scales: the file decides)",
       .options = "model=ViT-H-14 (architecture of a bare file), tokenizer= (folder, where none lies beside the "
                  "weights), resize=tensor|pillow (as the hpsv2 package, or as open_clip), antialias=on|off (off as "
                  "torchvision before 0.17 did)",
       .paper = "arXiv 2306.09341",
       .open = open_hpsv2},
      {.name = "clip",
       .path_help = "transformers CLIP folder, or a folder or file of open_clip",
       .summary = "scale * max(cosine, 0)",
       .options = "scale=100, prefix= (put before every prompt; the paper has 'A photo depicts ' and scale 2.5), "
                  "layout=auto|transformers|open_clip (of a folder that has both), model= (architecture of a bare "
                  "file, as ViT-B-32-quickgelu), tokenizer= (as for hpsv2)",
       .paper = "arXiv 2104.08718",
       .open = open_clip_score},
      {.name = "imagereward",
       .path_help = "folder with ImageReward's weights, med_config.json and the tokenizer of bert-base-uncased",
       .summary = "BLIP's judgement of prompt and picture, about normal with mean 0 and deviation 1",
       .options = "tokenizer=DIR (where the tokenizer is, if elsewhere), heads=width/64 (of the picture tower)",
       .paper = "arXiv 2304.05977",
       .open = open_image_reward},
      {.name = "mps",
       .path_help = "safetensors export of the MPS module, alone or in a transformers CLIP folder",
       .summary = "exp(logit_scale) * cosine of the prompt and the picture seen under a condition",
       .options = "condition=overall (or aesthetics, detail, semantic, a list of words), threshold=0.3 (of the "
                  "condition's mask), clip=DIR (config, tokenizer and preprocessor, if elsewhere)",
       .paper = "arXiv 2405.14705",
       .open = open_mps},
      {.name = "denscore",
       .path_help = "transformers CLIP folder",
       .summary = "mean cosine of the picture and the sentences of a long prompt",
       .options = "",
       .paper = "arXiv 2410.11817",
       .open = open_denscore},
      {.name = "aesthetic",
       .path_help = "head file (.pth, .safetensors) of LAION's predictors or v2.5, or a folder with it and its CLIP",
       .summary = "predicted rating of the picture, 1 to 10; the prompt does not matter",
       .options = "clip= (folder or file of the CLIP or SigLIP below the head, where it is not in PATH), model= "
                  "(architecture of a bare CLIP file; ViT-L-14-quickgelu)",
       .paper = "github.com/christophschuhmann/improved-aesthetic-predictor",
       .open = open_aesthetic},
      {.name = "trained",
       .path_help = "folder of prefusion train-reward",
       .summary = "what its head gives; higher is better",
       .options = "aspect=overall (a column of an aspects head), clip= (folder of its CLIP, where that moved)",
       .paper = "docs/train-reward.md",
       .open = open_trained_reward},
      {.name = "pal",
       .path_help = "folder of prefusion train-reward --head pal",
       .summary = "how near a picture is to a user's ideal point",
       .options = "user= (name of the user; the mean of all by default), clip= (as of trained)",
       .paper = "arXiv 2406.08469",
       .open = open_pal},
      {.name = "shapes",
       .path_help = "",
       .summary = "the exact judge of the bundled world: 2 where the picture shows its caption, plus taste in 0 .. 1",
       .options = "",
       .paper = "docs/shapes.md",
       .open = open_shapes_reward},
  };
  return kKinds;
}

namespace {

const RewardKind& kind_of(const RewardSpec& spec) {
  const auto& kinds = reward_kinds();
  const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const RewardKind& k) { return k.name == spec.kind; });
  if (kind == kinds.end()) {
    std::ostringstream known;
    for (const RewardKind& k : kinds) known << (known.tellp() > 0 ? ", " : "") << k.name;
    fail_usage("--reward ", spec.column, ": no such kind of reward model; there are ", known.str());
  }
  check_usage(spec.path.empty() == kind->path_help.empty(), "--reward ", spec.column,
              kind->path_help.empty() ? " takes no path" : "=PATH needs a path: " + kind->path_help);
  return *kind;
}

}  // namespace

void check_reward_spec(const RewardSpec& spec) {
  kind_of(spec);
}

std::unique_ptr<RewardModel> open_reward(const RewardSpec& spec, const RewardContext& context) {
  return kind_of(spec).open(spec, context);
}

std::string list_rewards() {
  std::ostringstream out;
  out << "reward  PATH  score  arguments  paper\n";
  for (const RewardKind& kind : reward_kinds()) {
    const auto shown = [](const std::string& text) { return text.empty() ? std::string("-") : text; };
    out << kind.name << "  " << shown(kind.path_help) << "  " << kind.summary << "  " << shown(kind.options) << "  "
        << kind.paper << '\n';
  }
  return out.str();
}

}  // namespace prefusion::reward_models
