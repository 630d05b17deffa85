#pragma once

#include <CLI/CLI.hpp>

// One function a subcommand: declares it on the root app. Each lives in the file of its name.
namespace prefusion::tools {

void add_align(CLI::App& root);
void add_bench(CLI::App& root);
void add_cache(CLI::App& root);
void add_convert(CLI::App& root);
void add_evaluate(CLI::App& root);
void add_filter(CLI::App& root);
void add_generate(CLI::App& root);
void add_inspect(CLI::App& root);
void add_optimize_prompt(CLI::App& root);
void add_pretrain(CLI::App& root);
void add_score(CLI::App& root);
void add_synthesize(CLI::App& root);
void add_train_reward(CLI::App& root);

}  // namespace prefusion::tools
