#pragma once

#include <CLI/CLI.hpp>

#include "training/align_options.h"

namespace prefusion::tools {

// Flags of commands that read preference data as a training run does: the same flags give the same groups, split and
// draws, and so the same entries of the cache.

// Which records, and what is made of their pictures and prompts.
void add_record_options(CLI::App& app, training::AlignOptions& options);

// What is held out of them.
void add_held_out_options(CLI::App& app, training::AlignOptions& options);

// At which timesteps groups are drawn.
void add_timestep_options(CLI::App& app, training::AlignOptions& options);

// --reference-model and --init-lora: what the policy is compared with.
void add_start_options(CLI::App& app, training::AlignOptions& options);

}  // namespace prefusion::tools
