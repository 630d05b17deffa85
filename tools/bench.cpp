#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "core/atomic_file.h"
#include "core/error.h"
#include "kernels/attention/attention.h"
#include "tools/bench_parts.h"
#include "tools/command.h"
#include "tools/commands.h"

namespace prefusion::tools {
namespace {

struct BenchCommand : CommonOptions {
  BenchOptions bench;
  bool no_yardsticks = false;
  std::filesystem::path output;
};

using Part = std::vector<BenchRow> (*)(const BenchOptions&);

const std::map<std::string, Part>& parts() {
  static const std::map<std::string, Part> all = {{"kernels", bench_kernels},     {"forward", bench_denoiser},
                                                  {"generate", bench_generation}, {"train", bench_training},
                                                  {"score", bench_scoring},       {"tune", bench_tune}};
  return all;
}

constexpr const char* kFooter = R"(What is timed:
  kernels   kernels of ours beside the ATen operations they replace, and attention, at the shapes of real models
  forward   one pass of a denoiser on random input, forward, and forward and backward for all weights
  generate  pictures, and their parts: text encoders, denoiser with sampler, decoder
  train     training steps of objectives on random groups of pictures (pairs, lists of 4), and the same with the errors of
            the reference cached
  tune      every attention of a denoiser in each way there is; the fastest are remembered for later runs, in the file
            PREFUSION_TUNING or ~/.cache/prefusion/tuning.json. Remove it to forget them
  score     a CLIP reward model on pictures in memory: preparing them, scoring them
Times are medians of repeated runs with their range. Shares are of what this machine does in a large matrix product and in a
copy, measured in the same run.
Examples:
  prefusion bench kernels --dtype bf16
  prefusion bench forward --model stable-diffusion-v1-5 --height 256 --width 256 --batch-size 2
  prefusion bench forward --model folder-with-unet-config --random-weights
  prefusion bench train --model stable-diffusion-v1-5 --objective diffusion-dpo,mapo --adapter full --dtype bf16
  prefusion bench tune --model stable-diffusion-v1-5 --dtype bf16 --batch-size 2
  prefusion bench generate --model assets/shapes --steps 10 --output bench.json)";

void add_options(CLI::App& app, BenchCommand& command) {
  auto& o = command.bench;
  std::vector<std::string> names;
  for (const auto& [name, part] : parts()) names.push_back(name);
  CLI::Option* what = app.add_option("what", o.what, "kernels, forward, train, tune, generate or score");
  what->check(CLI::IsMember(names));
  app.add_flag_callback(
         "--tune", [&o] { o.what = "tune"; }, "The same as `tune`")
      ->excludes(what);
  app.add_option("--model", o.model, "Model folder in diffusers layout; for score, the folder of a CLIP model");
  app.add_flag("--random-weights", o.random_weights,
               "forward, generate, train, tune: networks of the folder's configs with random weights, which the folder "
               "then need not have; generate: random text states, too");
  app.add_flag("--no-backward", o.no_backward, "forward: only that, which needs no memory for gradients");
  app.add_flag("--cuda-graph", o.uses_cuda_graphs,
               "forward, generate, train: passes replayed as one launch, beside launch by launch");
  app.add_option("--height", o.height_px, "Pixels; 0 is the model's own size (score: 512)")->capture_default_str();
  app.add_option("--width", o.width_px, "Pixels; 0 is the model's own size (score: 512)")->capture_default_str();
  app.add_option("--batch-size", o.batch_size, "Items, pictures at a time; train: groups")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{100'000}));
  app.add_option("--tokens", o.num_tokens, "forward, train, tune, and generate with random weights: text tokens")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  app.add_option("--pooled-width", o.pooled_width,
                 "The same: width of the pooled text states of a model whose config does not say it (SDXL)")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  app.add_option("--steps", o.num_inference_steps, "generate: sampling steps")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{100'000}));
  app.add_option("--guidance-scale", o.guidance_scale, "generate: 1 or less is none")->capture_default_str();
  app.add_option("--prompt", o.prompt, "generate, score: the prompt")->capture_default_str();
  app.add_option("--objective", o.objectives, "train: objectives on data, separated by commas")
      ->delimiter(',')
      ->default_str("diffusion-dpo");
  app.add_option("--adapter", o.adapter,
                 "train: lora (default), or full, which trains all weights and has a second network as reference")
      ->check(CLI::IsMember({"lora", "full"}));
  app.add_flag("--gradient-checkpointing", o.gradient_checkpointing, "train: recompute activations");
  app.add_option("--activation-memory", o.activation_memory_gb,
                 "train: GB of activations that blocks may keep; others are recomputed")
      ->check(CLI::NonNegativeNumber);
  std::vector<std::string> paths;
  for (const kernels::AttentionPath path : kernels::kAttentionPaths)
    paths.push_back(kernels::attention_path_name(path));
  app.add_option("--paths", o.paths,
                 "tune: ways of attention to try, separated by commas, of " + kernels::attention_path_names() +
                     "; aten is always tried")
      ->delimiter(',')
      ->check(CLI::IsMember(paths));
  app.add_option("--only", o.only, "kernels: those whose name contains this text; may be repeated");
  app.add_option("--warmup", o.repeats.warmup, "Runs that do not count")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  app.add_option("--repeats", o.repeats.at_least, "Runs that count, at least")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  app.add_option("--seconds", o.repeats.seconds, "Repeat for at least so many seconds")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0));
  app.add_flag("--no-yardsticks", command.no_yardsticks,
               "Leave out the large matrix product and the copy, and the shares of them");
  app.add_option("--output", command.output, "FILE.json that gets the same in SI units");
  app.footer(kFooter);
}

void check_request(const BenchOptions& options) {
  check_usage(!options.what.empty(), "bench: say what to time: kernels, forward, train, tune, generate or score");
  const bool needs_model = options.what != "kernels";
  check_usage(needs_model != options.model.empty(),
              needs_model ? "bench " + options.what + ": --model is missing" : "bench kernels: takes no --model");
  check_usage(!options.random_weights || (needs_model && options.what != "score"),
              "--random-weights: only of bench forward, generate, train and tune");
  check_usage(!options.no_backward || options.what == "forward", "--no-backward: only of bench forward");
  const bool can_be_recorded = options.what == "forward" || options.what == "generate" || options.what == "train";
  check_usage(!options.uses_cuda_graphs || can_be_recorded, "--cuda-graph: only of bench forward, generate and train");
  check_usage(!options.uses_cuda_graphs || options.device.is_cuda(),
              "--cuda-graph needs a CUDA device, this run is on ", options.device.str());
  const bool has_training = !options.objectives.empty() || !options.adapter.empty() || options.gradient_checkpointing ||
                            options.activation_memory_gb != 0;
  check_usage(!has_training || options.what == "train",
              "--objective, --adapter, --gradient-checkpointing, --activation-memory: only of bench train");
  check_usage(!options.gradient_checkpointing || options.activation_memory_gb == 0,
              "--gradient-checkpointing beside --activation-memory: leave one out");
  check_usage(options.only.empty() || !needs_model, "--only: only of bench kernels");
  check_usage(options.paths.empty() || options.what == "tune", "--paths: only of bench tune");
}

void run(const BenchCommand& command, const CLI::App&) {
  BenchOptions options = command.bench;
  options.device = command.torch_device();
  check_request(options);
  options.seed = command.seed;
  options.shows_progress = !command.quiet;
  options.dtype = command.scalar_type();
  BenchReport report;
  report.what = options.what;
  report.model = options.model.string();
  report.device = options.device.str();
  report.dtype = dtype_name(options.dtype);
  report.threads = at::get_num_threads();
  report.rows = parts().at(options.what)(options);
  for (const std::string& text : options.only) {
    const bool is_found = std::any_of(report.rows.begin(), report.rows.end(),
                                      [&](const BenchRow& row) { return row.name.find(text) != std::string::npos; });
    check_usage(is_found, "--only ", text, ": no kernel has that in its name");
  }
  // Before the yardsticks are measured, which need memory of their own.
  report.peak_memory_bytes = static_cast<double>(peak_memory_bytes(options.device));
  if (!command.no_yardsticks) report.machine = measure_machine(options.device, options.dtype);
  std::fputs(to_table(report).c_str(), stdout);
  if (!command.output.empty()) write_file(command.output, to_json(report).dump(1) + "\n");
}

}  // namespace

void add_bench(CLI::App& root) {
  add_command<BenchCommand>(root, "bench", "Times kernels, denoisers, training, generation and scoring on this machine",
                            add_options, run);
}

}  // namespace prefusion::tools
