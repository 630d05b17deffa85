#pragma once

#include <string>

#include "tools/generate_images.h"

namespace prefusion::tools {

// The picture's settings: JSON for the `prefusion` text chunk, and the text that other programs know as `parameters`.
std::string settings_json(const GenerateImagesOptions& options, const pipelines::ImageRequest& request,
                          pipelines::ImageSize size, const std::string& scheduler_name);
std::string parameters_text(const std::string& settings);

}  // namespace prefusion::tools
