#pragma once

#include "tools/convert_model.h"

namespace prefusion::tools {

// Floating tensors come as `dtype` from now on.
void cast_weights(ConvertibleModel& model, at::ScalarType dtype);

// base + strength * (model - base), of every network, computed in fp32 and rounded to the model's dtype; 0 and 1 are
// exactly the one and the other. Input error when the two do not have the same networks, names and shapes.
void interpolate(ConvertibleModel& model, const ConvertibleModel& base, double strength);

}  // namespace prefusion::tools
