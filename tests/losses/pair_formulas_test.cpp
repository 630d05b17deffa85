// The pairwise objectives against their formulas, written down once more with plain doubles.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "tests/losses/make_errors.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

// One pair; a = kappa * s_chosen, b = kappa * s_rejected.
struct Pair {
  double error[2], error_ref[2], kappa;
  double a() const { return kappa * (error_ref[0] - error[0]); }
  double b() const { return kappa * (error_ref[1] - error[1]); }
  double u() const { return a() - b(); }
  double gap() const { return error[1] - error[0]; }
};

struct Formula {
  std::string name, args;
  std::function<double(const Pair&)> loss;
};

double f_divergence(const Pair& p, double scale, const std::function<double(double)>& f) {
  return -log_sigmoid(scale * (f(p.a() / scale) - f(p.b() / scale)));
}

std::vector<Formula> formulas() {
  return {
      {"diffusion-dpo", "", [](const Pair& p) { return -log_sigmoid(p.u()); }},
      {"dpo-f", "divergence=forward-kl,scale=2",
       [](const Pair& p) { return f_divergence(p, 2, [](double x) { return -std::exp(-x); }); }},
      {"dpo-f", "divergence=jensen-shannon,scale=0.5", [](const Pair& p) { return f_divergence(p, 0.5, log_sigmoid); }},
      {"dpo-f", "divergence=alpha,alpha=0.3",
       [](const Pair& p) { return f_divergence(p, 1, [](double x) { return std::exp(-0.7 * x) / -0.7; }); }},
      {"exo", "label_smoothing=0.05",
       [](const Pair& p) {
         const double q = sigmoid(p.u());
         return q * std::log(q / 0.95) + (1 - q) * std::log((1 - q) / 0.05);
       }},
      {"nca", "",
       [](const Pair& p) { return -log_sigmoid(p.a()) - 0.5 * log_sigmoid(-p.a()) - 0.5 * log_sigmoid(-p.b()); }},
      {"bco", "delta=0.3", [](const Pair& p) { return -log_sigmoid(p.a() - 0.3) - log_sigmoid(-(p.b() - 0.3)); }},
      {"apo-zero", "", [](const Pair& p) { return (1 - sigmoid(p.a())) + sigmoid(p.b()); }},
      {"apo-down", "", [](const Pair& p) { return sigmoid(p.a()) + (1 - sigmoid(p.u())); }},
      {"sppo", "", [](const Pair& p) { return std::pow(p.a() - 0.5, 2) + std::pow(p.b() + 0.5, 2); }},
      {"discopop", "tau=0.5",
       [](const Pair& p) {
         const double m = sigmoid(p.u() / 0.5);
         return -(1 - m) * log_sigmoid(p.u()) + m * std::exp(-p.u());
       }},
      {"odpo", "alpha=0.7", [](const Pair& p) { return -log_sigmoid(p.u() - 0.7); }},  // labels 1 and 0
      {"poly-dpo", "alpha=8", [](const Pair& p) { return -log_sigmoid(p.u()) + 8 * (1 - sigmoid(p.u())); }},
      {"linear", "eta=0.1",
       [](const Pair& p) { return std::min(0.9, std::max(0.1, 0.5 - p.u())) * (p.error[0] - p.error[1]); }},
      {"snpo", "lambda=0.8",
       [](const Pair& p) {
         const double d = p.kappa * p.gap();
         const double d_ref = p.kappa * (p.error_ref[1] - p.error_ref[0]);
         return -log_sigmoid(-std::log(0.8 * std::exp(-d) + 0.2 * std::exp(-d_ref)) - d_ref);
       }},
      {"simpo", "gamma=0.4", [](const Pair& p) { return -log_sigmoid(p.kappa * p.gap() - 0.4); }},
      {"cpo", "alpha=3", [](const Pair& p) { return -log_sigmoid(p.kappa * p.gap()) + 3 * p.error[0]; }},
      {"orpo", "weight=0.2,K=500", [](const Pair& p) { return p.error[0] - 0.2 * log_sigmoid(500 * p.gap()); }},
  };
}

TEST(PairFormulas, AgreeWithTheObjectives) {
  GroupErrors errors = make_errors(12, 2, 5);
  for (const double spread : {1.0, 8.0}) {  // logits of about 1 and 8
    errors.error = errors.error_ref + spread * (errors.error - errors.error_ref);
    for (const Formula& formula : formulas()) {
      const Objective& objective = find_objective(formula.name);
      const ObjectiveParams params = resolve_params(objective.info, formula.args, {}, {});
      const at::Tensor found = objective.compute(errors, params).group_loss;
      for (int64_t i = 0; i < found.numel(); ++i) {
        const auto at = [&](const at::Tensor& x, int j) { return x[i][j].item<double>(); };
        const Pair pair{{at(errors.error, 0), at(errors.error, 1)},
                        {at(errors.error_ref, 0), at(errors.error_ref, 1)},
                        params.kappa};
        const double expected = formula.loss(pair);
        EXPECT_NEAR(found[i].item<double>(), expected, 1e-9 * std::max(1.0, std::abs(expected)))
            << formula.name << " " << formula.args << ", logit " << pair.u();
      }
    }
  }
}

}  // namespace
}  // namespace prefusion::losses
