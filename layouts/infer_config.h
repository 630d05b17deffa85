#pragma once

#include <string>

#include "core/json_config.h"
#include "core/tensor_source.h"
#include "layouts/family.h"

namespace prefusion::layouts {

// config.json of a network, from the shapes of its tensors (diffusers' names) and, for what shapes do not tell (heads,
// activations, groups of a norm, scaling factors), the values its family was published with. Input error, asking for a
// config, where the published value cannot be that of these shapes, or where a tensor that tells something is missing.
Json infer_config(Family family, const ComponentLayout& component, const TensorSources& tensors,
                  const std::string& prediction_type, const std::string& where);

}  // namespace prefusion::layouts
