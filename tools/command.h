#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"

namespace prefusion::tools {

// Flags every subcommand has.
struct CommonOptions {
  std::string config;           // TOML file; every long flag is a key of the same name
  std::string device = "auto";  // auto, cpu, cuda, cuda:N
  std::string dtype = "fp32";   // fp32, bf16, fp16
  uint64_t seed = 0;
  int threads = 0;  // 0: OMP_NUM_THREADS, else all cores
  std::string log_level = "info";
  bool quiet = false;  // no progress, warnings and errors only

  at::Device torch_device() const { return parse_device(device); }
  at::ScalarType scalar_type() const { return parse_dtype(dtype); }
};

void add_common_options(CLI::App& app, CommonOptions& options);

// Sets threads, log level and interrupt handlers as the flags say.
void apply_common_options(const CommonOptions& options);

// A subcommand is an Options struct that derives from CommonOptions, a function that declares its flags, and one that
// runs it. `add_options` must not have side effects beyond the app: parsing is tested without running.
template <typename Options>
void add_command(CLI::App& root, const std::string& name, const std::string& description,
                 void (*add_options)(CLI::App&, Options&), void (*run)(const Options&, const CLI::App&)) {
  auto options = std::make_shared<Options>();
  CLI::App* app = root.add_subcommand(name, description);
  add_options(*app, *options);
  add_common_options(*app, *options);
  app->final_callback([app, options, run] {
    apply_common_options(*options);
    run(*options, *app);
  });
}

// The arguments with the keys of --config FILE put in for every flag the command line does not give.
// Input error for a file that is no TOML, usage error for a key that is no flag of `app`. A folder given as --config is
// the --model-config of a command that has such a flag.
std::vector<std::string> merge_config_file(const CLI::App& root, std::vector<std::string> arguments);

// All flags of a parsed subcommand but `left_out` with their resolved values, as TOML that --config reads back.
std::string resolved_config(const CLI::App& app, const std::vector<std::string>& left_out = {});

}  // namespace prefusion::tools
