#pragma once

#include <string>

#include "tools/convert_model.h"

namespace prefusion::tools {

// Compares names and shapes of a network's weights with its config, where prefusion has the network. Input error that
// lists what is missing, unexpected or of another shape.
void check_part(const ModelPart& part, const std::string& where);

// Gives CLIP-L of SD3 the projection its files leave out: the identity.
void add_identity_projection(layouts::Family family, ModelPart& part);

}  // namespace prefusion::tools
