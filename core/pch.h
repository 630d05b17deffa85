#pragma once

// The one precompiled header. Parsing ATen and torch::nn::Module costs about ten seconds a translation unit;
// the targets that need them reuse the object made here (cmake/PrefusionTargets.cmake).
#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
