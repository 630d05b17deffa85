#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tools/command.h"

namespace prefusion::tools {

// What `prefusion convert` is asked for.
struct ConvertCommand : CommonOptions {
  std::filesystem::path model;     // diffusers folder or single file; empty: LoRAs alone
  std::filesystem::path base;      // the model that --strength counts from
  double strength = 1.0;           // base + strength (model - base)
  std::vector<std::string> loras;  // PATH[:SCALE]
  std::filesystem::path output;
  std::string format;                  // diffusers or original; empty: by the output's name
  std::filesystem::path model_config;  // diffusers folder with configs, tokenizers and scheduler
  std::string prediction_type;
  bool use_ema = false;
  std::string lora_format = "diffusers";
  std::string kohya_blocks = "auto";
  int64_t rank = 0;  // 0: of concatenation
  bool dry_run = false;
  bool overwrite = false;
  bool has_dtype = false;  // --dtype was given
};

// Everything that is wrong with the command line, before a file is opened. Usage error.
void check_request(const ConvertCommand& command);

// Whether a model comes out as one file.
bool writes_single_file(const ConvertCommand& command);

void convert_model(const ConvertCommand& command);
void convert_loras(const ConvertCommand& command);

}  // namespace prefusion::tools
