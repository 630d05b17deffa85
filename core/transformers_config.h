#pragma once

#include <string>

#include "core/json_config.h"

namespace prefusion {

// Keys that every transformers config may carry and a forward pass of an encoder never reads: versions, training and
// generation settings. Files of transformers 4.2x spell all of them out.
void ignore_transformers_keys(ConfigReader& reader);

// The part `name` ("text_config") of a config of several models, with the values of the older `name`_dict, which win.
// Null where there is neither.
Json transformers_half(const Json& config, const std::string& name);

}  // namespace prefusion
