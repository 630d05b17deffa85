#include "training/cache_data.h"

#include "core/error.h"
#include "core/logging.h"
#include "losses/registry.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/preference_options.h"

namespace prefusion::tools {
namespace {

struct CacheCommand : CommonOptions {
  training::AlignOptions run;
  int64_t reference_errors = 0;
};

void add_options(CLI::App& app, CacheCommand& command) {
  const std::string group = "Cache";
  training::AlignOptions& o = command.run;
  o.batch_size = 16;
  app.add_option("--model", o.model, "Diffusers-layout model folder whose encoders and denoiser are used")
      ->group(group);
  app.add_option("--cache,--output", o.cache, "Folder of the cache, as --cache of align; what it holds already is kept")
      ->group(group);
  app.add_option("--objective", o.objective,
                 "Objective of the runs to come: says whether pairs, lists, single pictures, masks or prompts of each "
                 "picture are encoded")
      ->capture_default_str()
      ->group(group);
  app.add_option("--reference-errors", command.reference_errors,
                 "Compute the reference's errors of D draws of every training group as well, for align --reference "
                 "cached --reference-draws D; 0 for none")
      ->type_name("D")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--batch-size", o.batch_size, "Groups a pass of the reference")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  add_record_options(app, o);
  add_held_out_options(app, o);
  add_timestep_options(app, o);
  add_start_options(app, o);
  app.add_option("--adapter", o.adapter, "Of the runs to come: lora or full; only matters with --init-lora")
      ->capture_default_str()
      ->group("Start and reference");
  app.footer(
      "An entry is found again by what it depends on: picture bytes, transform and VAE; prompt and text encoder; for\n"
      "errors also reference, seed, group, draw and timestep. So give the flags of data, held-out data, timesteps,\n"
      "start, --seed and --dtype the values that align gets (for a run with --eval-every 0, --eval-groups 0 here);\n"
      "a mistake costs time, never a wrong number: align computes what it does not find, and says how much that was.\n"
      "Interrupted, the command goes on where it was.\n"
      "Example: two draws once, then a sweep that holds no reference:\n"
      "  prefusion cache --model assets/shapes --data assets/shapes-preferences.parquet --cache shapes-cache \\\n"
      "      --reference-errors 2\n"
      "  prefusion align --model assets/shapes --data assets/shapes-preferences.parquet --cache shapes-cache \\\n"
      "      --reference cached --reference-draws 2 --epochs 4 --kappa 1000 --output run-1000");
}

void run(const CacheCommand& command, const CLI::App&) {
  training::AlignOptions options = command.run;
  check_usage(!options.cache.empty(), "--cache is required: the folder that align gets as --cache");
  check_usage(losses::find_objective_info(options.objective).data != losses::DataKind::kOnline, "--objective ",
              options.objective, " trains on the policy's own samples: there is no data to encode ahead");
  options.seed = command.seed;
  options.progress = !command.quiet;
  options.output = options.cache;
  if (command.reference_errors > 0) options.reference = "cached";
  training::validate(options);
  training::cache_data(options, command.reference_errors, command.torch_device(), command.scalar_type());
  log_info("the cache is in ", options.cache.string());
}

}  // namespace

void add_cache(CLI::App& root) {
  add_command<CacheCommand>(root, "cache", "Encodes preference data ahead of training", add_options, run);
}

}  // namespace prefusion::tools
