#include "tools/command.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tests/support/temp_dir.h"

namespace prefusion::tools {
namespace {

struct SampleOptions : CommonOptions {
  std::string name = "plain";
  int64_t steps = 10;
  double rate = 1e-5;
  std::optional<double> beta;
  std::filesystem::path output;
  std::vector<std::filesystem::path> data;
  std::vector<std::string> modules = {"to_q", "to_k"};
  bool fast = false;
};

SampleOptions parsed;
std::string parsed_config;

void add_sample_options(CLI::App& app, SampleOptions& o) {
  app.add_option("--name", o.name)->capture_default_str();
  app.add_option("--steps", o.steps)->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--rate", o.rate)->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--beta", o.beta);
  app.add_option("--output", o.output);
  app.add_option("--data", o.data);
  app.add_option("--modules", o.modules)->delimiter(',')->capture_default_str();
  app.add_flag("--fast", o.fast);
}

void keep_sample_options(const SampleOptions& options, const CLI::App& app) {
  parsed = options;
  parsed_config = resolved_config(app);
}

void parse(std::vector<std::string> arguments) {
  CLI::App root("test", "test");
  root.require_subcommand(1);
  add_command<SampleOptions>(root, "sample", "A sample", add_sample_options, keep_sample_options);
  arguments.insert(arguments.begin(), "sample");
  arguments = merge_config_file(root, std::move(arguments));
  root.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
}

int exit_code(const std::vector<std::string>& arguments, const std::string& mentions = "") {
  try {
    parse(arguments);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(mentions), std::string::npos) << error.what();
    return error.exit_code();
  } catch (const CLI::ParseError& error) {
    EXPECT_NE(std::string(error.what()).find(mentions), std::string::npos) << error.what();
    return 2;
  }
  return 0;
}

class CommandTest : public testing::Test {
 protected:
  std::string config(const std::string& text) {
    write_file(folder / "config.toml", text);
    return (folder / "config.toml").string();
  }
  tests::TempDir folder;
};

TEST_F(CommandTest, ConfigFileGivesEveryKindOfFlag) {
  parse({"--config", config("name = \"from file\"\nsteps = 60\nrate = 2.5e-4\nbeta = 5000\noutput = 'out dir'\n"
                            "data = [\"a.parquet\", \"b c.parquet\"]\nmodules = [\"x\"]\nfast = true\nseed = 7\n"
                            "quiet = false\n")});
  EXPECT_EQ(parsed.name, "from file");
  EXPECT_EQ(parsed.steps, 60);
  EXPECT_DOUBLE_EQ(parsed.rate, 2.5e-4);
  EXPECT_EQ(parsed.beta, 5000.0);
  EXPECT_EQ(parsed.output, "out dir");
  EXPECT_EQ(parsed.data, (std::vector<std::filesystem::path>{"a.parquet", "b c.parquet"}));
  EXPECT_EQ(parsed.modules, std::vector<std::string>{"x"});
  EXPECT_TRUE(parsed.fast);
  EXPECT_EQ(parsed.seed, 7u);
  EXPECT_FALSE(parsed.quiet);
}

TEST_F(CommandTest, CommandLineWins) {
  const std::string path = config("name = \"file\"\nsteps = 60\ndata = [\"a\"]\n");
  parse({"--steps=5", "--config=" + path, "--data", "b", "c"});
  EXPECT_EQ(parsed.name, "file");
  EXPECT_EQ(parsed.steps, 5);
  EXPECT_EQ(parsed.data, (std::vector<std::filesystem::path>{"b", "c"}));
}

TEST_F(CommandTest, UnknownKeyIsNamed) {
  EXPECT_EQ(exit_code({"--config", config("stepz = 3\n")}, "'stepz'"), 2);
}

TEST_F(CommandTest, ValuesOfTheWrongTypeAreUsageErrors) {
  EXPECT_EQ(exit_code({"--config", config("steps = \"many\"\n")}, "steps"), 2);
  EXPECT_EQ(exit_code({"--config", config("steps = -1\n")}, "steps"), 2);
  EXPECT_EQ(exit_code({"--config", config("steps = true\n")}, "steps"), 2);
  EXPECT_EQ(exit_code({"--config", config("[steps]\nx = 1\n")}, "steps"), 2);
  EXPECT_EQ(exit_code({"--config", config("data = [[\"a\"]]\n")}, "data"), 2);
}

TEST_F(CommandTest, BrokenOrMissingFileIsAnInputError) {
  EXPECT_EQ(exit_code({"--config", config("name = \n")}, "line 1"), 3);
  EXPECT_EQ(exit_code({"--config", (folder / "absent.toml").string()}, "absent.toml"), 3);
  EXPECT_EQ(exit_code({"--config", config("name = \"\xFF\"\n")}), 3);
}

TEST_F(CommandTest, UnknownFlagAndBadValueAreUsageErrors) {
  EXPECT_EQ(exit_code({"--no-such-flag"}, "--no-such-flag"), 2);
  EXPECT_EQ(exit_code({"--steps", "ten"}, "--steps"), 2);
  EXPECT_EQ(exit_code({"--log-level", "loud"}, "loud"), 2);
  EXPECT_EQ(exit_code({"--threads", "-3"}, "--threads"), 2);
}

TEST_F(CommandTest, ResolvedConfigReadsBackTheSame) {
  const std::vector<std::string> given = {"--name",   "quote \" back\\slash\nline\ttab \xC3\xA9",
                                          "--steps",  "010",
                                          "--rate",   ".5",
                                          "--beta",   "1.",
                                          "--output", "a b",
                                          "--data",   "p,q",
                                          "r",        "--modules",
                                          "x,y",      "--fast",
                                          "--seed",   "18446744073709551615"};
  parse(given);
  const SampleOptions first = parsed;
  const std::string first_config = parsed_config;
  parse({"--config", config(first_config)});
  EXPECT_EQ(parsed.name, first.name);
  EXPECT_EQ(parsed.steps, first.steps);
  EXPECT_EQ(parsed.rate, first.rate);
  EXPECT_EQ(parsed.beta, first.beta);
  EXPECT_EQ(parsed.output, first.output);
  EXPECT_EQ(parsed.data, first.data);
  EXPECT_EQ(parsed.modules, first.modules);
  EXPECT_EQ(parsed.fast, first.fast);
  EXPECT_EQ(parsed.seed, first.seed);
  EXPECT_EQ(first.beta, 1.0);
  EXPECT_EQ(first.rate, 0.5);
}

TEST_F(CommandTest, ResolvedConfigHoldsTheDefaults) {
  parse({});
  EXPECT_NE(parsed_config.find("steps = 10\n"), std::string::npos) << parsed_config;
  EXPECT_NE(parsed_config.find("rate = 1e-05\n"), std::string::npos) << parsed_config;
  EXPECT_NE(parsed_config.find("name = \"plain\"\n"), std::string::npos) << parsed_config;
  EXPECT_NE(parsed_config.find("fast = false\n"), std::string::npos) << parsed_config;
  parse({"--config", config(parsed_config)});
  EXPECT_EQ(parsed.rate, 1e-5);
  EXPECT_EQ(parsed.modules, (std::vector<std::string>{"to_q", "to_k"}));
}

TEST_F(CommandTest, FlagCanBeSwitchedOffOnTheCommandLine) {
  parse({"--config", config("fast = true\n"), "--fast=false"});
  EXPECT_FALSE(parsed.fast);
  EXPECT_NE(parsed_config.find("fast = false\n"), std::string::npos) << parsed_config;
}

}  // namespace
}  // namespace prefusion::tools
