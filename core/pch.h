#pragma once

// The one precompiled header. Parsing ATen, torch::nn::Module and nlohmann's JSON costs about ten seconds a translation
// unit; the targets that need them reuse the object made here (cmake/PrefusionTargets.cmake).
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>
