#include <c10/util/Exception.h>

#include <cstdio>
#include <new>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/host_memory.h"
#include "core/interrupt.h"
#include "core/json_config.h"
#include "tools/command.h"
#include "tools/commands.h"

namespace {

// LibTorch's messages carry a C++ backtrace; users get the first line.
std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

int report(const std::string& message, int exit_code) {
  std::fprintf(stderr, "error: %s\n", first_line(message).c_str());
  return exit_code;
}

int run(int argc, char** argv) {
  CLI::App root(
      "prefusion aligns diffusion models with human and synthetic preferences.\n"
      "Start with: prefusion align --help, or scripts/demo.sh for the whole loop on the bundled model.",
      "prefusion");
  root.require_subcommand(1);
  root.set_version_flag("--version", PREFUSION_VERSION);
  prefusion::tools::add_align(root);
  prefusion::tools::add_bench(root);
  prefusion::tools::add_cache(root);
  prefusion::tools::add_convert(root);
  prefusion::tools::add_evaluate(root);
  prefusion::tools::add_filter(root);
  prefusion::tools::add_generate(root);
  prefusion::tools::add_inspect(root);
  prefusion::tools::add_optimize_prompt(root);
  prefusion::tools::add_pretrain(root);
  prefusion::tools::add_score(root);
  prefusion::tools::add_synthesize(root);
  prefusion::tools::add_train_reward(root);

  std::vector<std::string> arguments(argv + 1, argv + argc);
  arguments = prefusion::tools::merge_config_file(root, std::move(arguments));
  try {
    // CLI11 takes its arguments last first.
    root.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::Success& success) {
    return root.exit(success);
  } catch (const CLI::ParseError& error) {
    return report(
        std::string(error.what()) + " (see prefusion " + (arguments.empty() ? "" : arguments[0] + " ") + "--help)", 2);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  prefusion::keep_freed_memory();
  try {
    return run(argc, argv);
  } catch (const prefusion::Interrupted& interrupted) {
    std::fprintf(stderr, "interrupted; everything up to here is saved\n");
    return interrupted.exit_code();
  } catch (const prefusion::Error& error) {
    return report(error.what(), error.exit_code());
  } catch (const prefusion::Json::exception& error) {
    return report(error.what(), 3);
  } catch (const c10::OutOfMemoryError& error) {
    return report(std::string("out of device memory; use a smaller --batch-size or --gradient-checkpointing (") +
                      first_line(error.what_without_backtrace()) + ")",
                  4);
  } catch (const c10::Error& error) {
    return report(error.what_without_backtrace(), 4);
  } catch (const std::bad_alloc&) {
    return report("out of memory; use a smaller --batch-size or --gradient-checkpointing", 4);
  } catch (const std::exception& error) {
    return report(error.what(), 4);
  }
}
