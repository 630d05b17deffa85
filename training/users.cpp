#include "training/users.h"

#include <set>

#include "core/error.h"
#include "core/logging.h"
#include "core/rng.h"
#include "losses/registry.h"
#include "text/unicode.h"

namespace prefusion::training {
namespace {

losses::ObjectiveParams params_of(const AlignOptions& options) {
  return losses::resolve_params(losses::find_objective_info(options.objective), options.objective_args, options.beta,
                                options.kappa);
}

bool trains_users_alone(const losses::ObjectiveParams& params) {
  return params.choice("train") == "users";
}

nn::UserAdapterConfig config_of(const losses::ObjectiveParams& params) {
  return {.num_tokens = static_cast<int64_t>(params.get("user_tokens")),
          .width = static_cast<int64_t>(params.get("user_width"))};
}

std::shared_ptr<nn::UserAdapter> load_start(unet::Denoiser& denoiser, const AlignOptions& options,
                                            const losses::ObjectiveParams& params) {
  auto adapter = nn::UserAdapter::load(denoiser, options.init_user_adapter);
  const nn::UserAdapterConfig defaults, wanted = config_of(params), &found = adapter->config();
  const auto fits = [](int64_t is, int64_t asked, int64_t by_default) { return asked == by_default || asked == is; };
  check_usage(
      fits(found.num_tokens, wanted.num_tokens, defaults.num_tokens) && fits(found.width, wanted.width, defaults.width),
      "--objective-args: the users of ", options.init_user_adapter.string(), " have user_tokens=", found.num_tokens,
      ",user_width=", found.width, "; leave both out");
  log_info("user adapter ", options.init_user_adapter.string(), ": ", adapter->users().size(), " users");
  return adapter;
}

void check_names(const std::vector<std::string>& users) {
  for (const std::string& name : users) {
    check_input(text::find_invalid_utf8(name) == std::string::npos, "the data names a user who is not UTF-8");
  }
}

// The first of `users` that are (or are not) in the table, for messages.
std::string known_ones(const nn::UserAdapter& adapter, const std::vector<std::string>& users, bool is_known) {
  std::string first;
  int64_t count = 0;
  for (const std::string& name : users) {
    if (adapter.has_user(name) != is_known) continue;
    if (count++ == 0) first = "'" + name + "'";
  }
  return count > 1 ? concat(first, " and ", count - 1, " more") : first;
}

}  // namespace

void check_user_options(const AlignOptions& o, const losses::ObjectiveInfo& objective) {
  if (!objective.needs_users) {
    check_usage(o.init_user_adapter.empty() && o.user_embeddings.empty(), "--objective ", o.objective,
                " knows no users: leave --init-user-adapter and --user-embeddings out, or choose ppd");
    return;
  }
  const ReferenceSpec spec = o.reference_spec(objective);
  check_usage(!spec.moves(), "--reference ", o.reference, ": the reference of ", o.objective,
              " knows no users, so it cannot follow them; use adapter-off, frozen or cached");
  check_usage(o.init_user_adapter.empty() || o.user_embeddings.empty(),
              "--user-embeddings: --init-user-adapter has users of its own; give one of them");
  const losses::ObjectiveParams params = params_of(o);
  check_usage(!trains_users_alone(params) || !o.init_user_adapter.empty(),
              "--objective-args train=users needs --init-user-adapter FILE, whose projections stay as they are");
}

std::shared_ptr<nn::UserAdapter> make_user_adapter(unet::Denoiser& denoiser, const AlignOptions& options) {
  const losses::ObjectiveParams params = params_of(options);
  if (!options.init_user_adapter.empty()) return load_start(denoiser, options, params);
  if (options.user_embeddings.empty()) {
    return nn::UserAdapter::create(denoiser, config_of(params), make_torch_generator(options.seed));
  }
  const TensorMap states = nn::read_user_states(options.user_embeddings);
  const at::Tensor& first = states.begin()->second;
  auto adapter = nn::UserAdapter::create(denoiser, {.num_tokens = first.size(0), .width = first.size(1)},
                                         make_torch_generator(options.seed));
  adapter->set_users(states);
  return adapter;
}

std::vector<NamedTensor> enroll_users(nn::UserAdapter& adapter, const std::vector<std::string>& users,
                                      const AlignOptions& options) {
  check_names(users);
  std::vector<NamedTensor> trained = adapter.projections();
  if (!options.user_embeddings.empty()) {
    const std::string missing = known_ones(adapter, users, /*is_known=*/false);
    check_input(missing.empty(), options.user_embeddings.string(), ": has no states of ", missing,
                ", who judged training data");
  } else if (trains_users_alone(params_of(options))) {
    const std::string known = known_ones(adapter, users, /*is_known=*/true);
    check_usage(known.empty(), "--objective-args train=users fits users whom ", options.init_user_adapter.string(),
                " does not know, but the data has pairs of ", known, " too");
    adapter.add_users_like_empty(users);
    const std::set<std::string> fitted(users.begin(), users.end());
    trained.clear();
    for (auto& user : adapter.user_tensors()) {
      if (fitted.contains(user.name.substr(std::string("users.").size()))) trained.push_back(std::move(user));
    }
  } else {
    adapter.add_users(users, options.seed);
    for (auto& user : adapter.user_tensors()) trained.push_back(std::move(user));
  }
  for (auto& [name, tensor] : trained) tensor.set_requires_grad(true);
  log_info(users.size(), " users judged the training data");
  return trained;
}

std::vector<std::string> distinct_users(const data::PreferenceDataset& dataset) {
  std::set<std::string> users;
  for (int64_t i = 0; i < dataset.size(); ++i) users.insert(dataset.user(i));
  return {users.begin(), users.end()};
}

double user_dropout(const losses::ObjectiveParams& params) {
  return trains_users_alone(params) ? 0.0 : params.get("user_dropout");
}

}  // namespace prefusion::training
