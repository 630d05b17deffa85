#include "losses/registry.h"
#include "losses/online/online_objective.h"

#include <gtest/gtest.h>

#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tests/losses/make_errors.h"

namespace prefusion::losses {
namespace {

const ObjectiveInfo& info_of(const char* name) {
  return find_objective(name).info;
}

// The usage error's message; fails the test when there is none.
template <typename Call>
std::string usage_error(Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kUsage);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Registry, NamesAreUniqueAndEveryRowIsComplete) {
  std::set<std::string> names;
  for (const Objective& objective : objectives()) {
    EXPECT_TRUE(names.insert(objective.info.name).second) << objective.info.name;
    EXPECT_FALSE(objective.info.paper.empty()) << objective.info.name;
    EXPECT_FALSE(objective.info.summary.empty()) << objective.info.name;
    EXPECT_NE(objective.group_loss, nullptr);
    EXPECT_EQ(objective.info.has_kappa(), objective.info.default_beta > 0) << objective.info.name;
    for (const auto& parameter : objective.info.parameters) {
      EXPECT_LE(parameter.min, parameter.default_value) << parameter.name;
      EXPECT_GE(parameter.max, parameter.default_value) << parameter.name;
      EXPECT_FALSE(parameter.help.empty()) << parameter.name;
    }
  }
}

TEST(Registry, UnknownNameNamesTheNearestAndAll) {
  const std::string message = usage_error([] { find_objective("difusion_dpo"); });
  EXPECT_TRUE(mentions(message, "did you mean 'diffusion-dpo'")) << message;
  for (const Objective& objective : objectives()) EXPECT_TRUE(mentions(message, objective.info.name));
  EXPECT_TRUE(mentions(usage_error([] { find_objective("mapoo"); }), "did you mean 'mapo'"));
  EXPECT_FALSE(mentions(usage_error([] { find_objective(""); }), "\n"));
}

TEST(ResolveParams, BetaFollowsThePublicCodeAndKappaIsDirect) {
  EXPECT_EQ(resolve_params(info_of("diffusion-dpo"), "", {}, {}).kappa, 2500);
  EXPECT_EQ(resolve_params(info_of("diffusion-dpo"), "", 2000.0, {}).kappa, 1000);
  EXPECT_EQ(resolve_params(info_of("diffusion-dpo"), "", {}, 2000.0).kappa, 2000);
  EXPECT_EQ(resolve_params(info_of("kto"), "", {}, {}).kappa, 1000);
  EXPECT_EQ(resolve_params(info_of("kto"), "", 5000.0, {}).kappa, 5000);
}

TEST(ResolveParams, RefusesBothAndNeitherWhereThereIsNoKappa) {
  EXPECT_TRUE(mentions(usage_error([] { resolve_params(info_of("diffusion-dpo"), "", 1.0, 1.0); }), "--kappa"));
  for (const double bad : {0.0, -1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    usage_error([&] { resolve_params(info_of("diffusion-dpo"), "", bad, {}); });
    usage_error([&] { resolve_params(info_of("diffusion-dpo"), "", {}, bad); });
  }
  for (const char* name : {"sft", "mapo"}) {
    EXPECT_TRUE(mentions(usage_error([&] { resolve_params(info_of(name), "", 1.0, {}); }), "has no kappa"));
    EXPECT_TRUE(mentions(usage_error([&] { resolve_params(info_of(name), "", {}, 1.0); }), "has no kappa"));
  }
}

TEST(ResolveParams, ReadsObjectiveArgs) {
  const ObjectiveParams params = resolve_params(info_of("mapo"), " weight=0.25 , T = 5e2", {}, {});
  EXPECT_EQ(params.get("weight"), 0.25);
  EXPECT_EQ(params.get("T"), 500);
  EXPECT_EQ(params.get("snr"), 0.5);
}

TEST(ResolveParams, RefusesBadObjectiveArgsByName) {
  const auto message = [](const char* args) {
    return usage_error([&] { resolve_params(info_of("dpo-robust"), args, {}, {}); });
  };
  EXPECT_TRUE(mentions(message("label_smooting=0.1"), "did you mean 'label_smoothing'"));
  EXPECT_TRUE(mentions(message("label_smoothing=0.5"), "out of range"));
  EXPECT_TRUE(mentions(message("label_smoothing=-0.1"), "out of range"));
  EXPECT_TRUE(mentions(message("label_smoothing=abc"), "not a number"));
  EXPECT_TRUE(mentions(message("label_smoothing=nan"), "not a number"));
  EXPECT_TRUE(mentions(message("label_smoothing=0.1x"), "not a number"));
  EXPECT_TRUE(mentions(message("label_smoothing="), "not a number"));
  EXPECT_TRUE(mentions(message("label_smoothing"), "name=value"));
  EXPECT_TRUE(mentions(message("label_smoothing=0.1,"), "name=value"));
  EXPECT_TRUE(mentions(message("=0.1"), "name=value"));
  EXPECT_TRUE(mentions(message("label_smoothing=0.1,label_smoothing=0.2"), "twice"));
  EXPECT_TRUE(mentions(message("beta=5000"), "--beta"));
  EXPECT_TRUE(mentions(usage_error([] { resolve_params(info_of("sft"), "x=1", {}, {}); }), "no parameters"));
}

TEST(ResolveParams, ReadsAndChecksChoices) {
  const ObjectiveParams defaults = resolve_params(info_of("dpo-f"), "", {}, {});
  EXPECT_EQ(defaults.choice("divergence"), "reverse-kl");
  EXPECT_FALSE(defaults.values.contains("divergence"));
  const ObjectiveParams params = resolve_params(info_of("dpo-f"), "divergence = alpha ,alpha=0.25", {}, {});
  EXPECT_EQ(params.choice("divergence"), "alpha");
  EXPECT_EQ(params.get("alpha"), 0.25);
  const auto message = [](const char* args) {
    return usage_error([&] { resolve_params(info_of("dpo-f"), args, {}, {}); });
  };
  EXPECT_TRUE(mentions(message("divergence=forward_kl"), "did you mean 'forward-kl'"));
  EXPECT_TRUE(mentions(message("divergence=1"), "reverse-kl, forward-kl, jensen-shannon, alpha"));
  EXPECT_TRUE(mentions(message("divergence="), "unknown ''"));
  EXPECT_TRUE(mentions(message("divergence=alpha,divergence=alpha"), "twice"));
}

TEST(ResolveParams, RefusesFractionsOfWholeNumbers) {
  EXPECT_EQ(resolve_params(info_of("ranklist"), "strides=3", {}, {}).get("strides"), 3);
  EXPECT_TRUE(
      mentions(usage_error([] { resolve_params(info_of("ranklist"), "strides=1.5", {}, {}); }), "whole number"));
}

TEST(ResolveParams, FollowsTheFactorsOfOtherPublicCode) {
  EXPECT_DOUBLE_EQ(resolve_params(info_of("linear"), "", {}, {}).kappa, 20);
  EXPECT_EQ(resolve_params(info_of("dgpo"), "", {}, {}).kappa, 100);
  EXPECT_TRUE(mentions(usage_error([] { resolve_params(info_of("orpo"), "", 0.1, {}); }), "K"));
}

TEST(Registry, TellsOnlineObjectivesFromOthers) {
  EXPECT_EQ(find_objective_info("ddpo").data, DataKind::kOnline);
  EXPECT_TRUE(mentions(usage_error([] { find_objective("ddpo"); }), "own samples"));
  EXPECT_EQ(find_online_objective("diffusion-dpo"), nullptr);
}

TEST(ObjectiveTable, ShowsAllWordsOfAChoice) {
  EXPECT_TRUE(mentions(objective_table(), "divergence reverse-kl|forward-kl|jensen-shannon|alpha"));
  EXPECT_EQ(describe_params(info_of("aot"), resolve_params(info_of("aot"), "pairing=unpaired", {}, 1.0)),
            "kappa 1 (beta 2), label_smoothing 0, pairing unpaired");
}

TEST(ObjectiveTable, ShowsBetaAndKappaOfEveryObjective) {
  const std::string table = objective_table();
  for (const ObjectiveInfo* info : listed_objectives()) EXPECT_TRUE(mentions(table, info->name));
  EXPECT_TRUE(mentions(table, "kappa 2500 (beta 5000)"));
  EXPECT_TRUE(mentions(table, "kappa 1000 (beta 1000)"));
}

TEST(ObjectiveTable, IsWhatTheDocumentationShows) {
  const std::string docs = read_file(std::filesystem::path(PREFUSION_DOCS_DIR) / "objectives.md");
  EXPECT_TRUE(mentions(docs, objective_table())) << "docs/objectives.md should hold this text:\n" << objective_table();
  for (const ObjectiveInfo* info : listed_objectives()) {
    EXPECT_TRUE(mentions(docs, "### " + info->name + "\n")) << info->name;
    for (const auto& parameter : info->parameters) EXPECT_TRUE(mentions(docs, "`" + parameter.name + "`"));
  }
}

TEST(ParamsMetadata, HoldsKappaAndParametersAsText) {
  const auto metadata = params_metadata(resolve_params(info_of("dpo-smooth"), "label_smoothing=0.25", {}, 100.0));
  EXPECT_EQ(metadata.at("kappa"), "100");
  EXPECT_EQ(metadata.at("label_smoothing"), "0.25");
  EXPECT_EQ(params_metadata(resolve_params(info_of("dpo-f"), "divergence=alpha", {}, {})).at("divergence"), "alpha");
  EXPECT_FALSE(params_metadata(resolve_params(info_of("mapo"), "", {}, {})).contains("kappa"));
}

}  // namespace
}  // namespace prefusion::losses
