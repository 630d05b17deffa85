#include "nn/activation_checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "nn/attention.h"
#include "nn/layers.h"

namespace prefusion::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Autocast settings of the forward pass, to be had again in the backward pass, which runs outside their scope.
struct AutocastState {
  explicit AutocastState(at::DeviceType device)
      : device(device),
        enabled(at::autocast::is_autocast_enabled(device)),
        dtype(at::autocast::get_autocast_dtype(device)),
        cache_enabled(at::autocast::is_autocast_cache_enabled()) {}

  void apply() const {
    at::autocast::set_autocast_enabled(device, enabled);
    at::autocast::set_autocast_dtype(device, dtype);
    at::autocast::set_autocast_cache_enabled(cache_enabled);
  }

  at::DeviceType device;
  bool enabled;
  at::ScalarType dtype;
  bool cache_enabled;
};

// Restores the settings found at construction.
class AutocastGuard {
 public:
  explicit AutocastGuard(const AutocastState& state) : saved_(state.device) { state.apply(); }
  ~AutocastGuard() { saved_.apply(); }
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  AutocastState saved_;
};

// What the backward pass needs besides the saved tensors.
struct Recipe : torch::CustomClassHolder {
  Recipe(BlockFunction function, size_t num_inputs, AutocastState autocast)
      : function(std::move(function)), num_inputs(num_inputs), autocast(autocast) {}

  BlockFunction function;
  size_t num_inputs;
  AutocastState autocast;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  // `tensors` are the inputs, then the parameters. Only as a TensorList are its elements entered in the graph.
  static variable_list forward(AutogradContext* ctx, const c10::intrusive_ptr<Recipe>& recipe, at::TensorList tensors) {
    ctx->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
    ctx->save_for_backward(tensors.vec());
    ctx->set_materialize_grads(false);
    return recipe->function(tensors.slice(0, recipe->num_inputs).vec());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grad_outputs) {
    check_usage(!at::GradMode::is_enabled(), "activation checkpointing gives no gradients of gradients");
    const auto recipe = c10::static_intrusive_pointer_cast<Recipe>(ctx->saved_data["recipe"].toCapsule());
    const variable_list saved = ctx->get_saved_variables();

    variable_list inputs(saved.begin(), saved.begin() + recipe->num_inputs);
    for (at::Tensor& input : inputs) input = input.detach().set_requires_grad(input.requires_grad());
    const at::AutoGradMode recording(true);
    const AutocastGuard autocast(recipe->autocast);
    const variable_list outputs = recipe->function(inputs);
    return differentiate(outputs, grad_outputs, inputs, saved);
  }

 private:
  static variable_list differentiate(const variable_list& outputs, const variable_list& grad_outputs,
                                     const variable_list& inputs, const variable_list& saved) {
    variable_list roots, root_grads;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!outputs[i].requires_grad() || !grad_outputs[i].defined()) continue;
      roots.push_back(outputs[i]);
      root_grads.push_back(grad_outputs[i]);
    }
    variable_list wanted;
    std::vector<size_t> slots;
    for (size_t i = 0; i < saved.size(); ++i) {
      const at::Tensor& tensor = i < inputs.size() ? inputs[i] : saved[i];
      if (!tensor.requires_grad()) continue;
      wanted.push_back(tensor);
      slots.push_back(i);
    }
    variable_list grads(saved.size() + 1);  // the first belongs to the recipe
    if (roots.empty() || wanted.empty()) return grads;
    const variable_list found = torch::autograd::grad(roots, wanted, root_grads, /*retain_graph=*/false,
                                                      /*create_graph=*/false, /*allow_unused=*/true);
    for (size_t i = 0; i < slots.size(); ++i) grads[slots[i] + 1] = found[i];
    return grads;
  }
};

// The same function of the defined inputs alone, as autograd::Function takes no undefined ones.
BlockFunction of_defined_inputs(BlockFunction function, const std::vector<at::Tensor>& inputs) {
  std::vector<bool> is_defined;
  for (const at::Tensor& input : inputs) is_defined.push_back(input.defined());
  return [function = std::move(function), is_defined](const std::vector<at::Tensor>& defined) {
    std::vector<at::Tensor> all(is_defined.size());
    size_t next = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      if (is_defined[i]) all[i] = defined[next++];
    }
    return function(all);
  };
}

void collect_trainable(const torch::nn::Module& module, std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& parameter : module.parameters(/*recurse=*/false)) {
    if (parameter.requires_grad()) tensors.push_back(parameter);
  }
  if (const auto* target = dynamic_cast<const LoraTarget*>(&module); target && target->lora_enabled()) {
    for (const LoraBranch& branch : const_cast<LoraTarget*>(target)->lora_branches()) {
      if (branch.A.requires_grad()) tensors.push_back(branch.A);
      if (branch.B.requires_grad()) tensors.push_back(branch.B);
      const bool has_weights = branch.item_weights && branch.item_weights->defined();
      if (has_weights && branch.item_weights->requires_grad()) tensors.push_back(*branch.item_weights);
    }
  }
  if (const auto* attention = dynamic_cast<const AttentionImpl*>(&module)) {
    for (const at::Tensor& weight : {attention->user_branch.to_k, attention->user_branch.to_v}) {
      if (weight.defined() && weight.requires_grad()) tensors.push_back(weight);
    }
  }
  for (const auto& child : module.children()) collect_trainable(*child, tensors);
}

}  // namespace

std::vector<at::Tensor> activation_checkpoint(BlockFunction function, const std::vector<at::Tensor>& inputs,
                                              const std::vector<at::Tensor>& parameters) {
  if (!at::GradMode::is_enabled()) return function(inputs);
  function = of_defined_inputs(std::move(function), inputs);
  variable_list tensors;
  for (const at::Tensor& input : inputs) {
    if (input.defined()) tensors.push_back(input);
  }
  const size_t num_inputs = tensors.size();
  const AutocastState autocast(num_inputs > 0 ? tensors.front().device().type() : at::kCPU);
  tensors.insert(tensors.end(), parameters.begin(), parameters.end());
  // Autocast would remember the casts made in the unrecorded pass and hand them, without gradients, to the recorded
  // one.
  AutocastState uncached = autocast;
  uncached.cache_enabled = false;
  const AutocastGuard guard(uncached);
  return Checkpoint::apply(c10::make_intrusive<Recipe>(std::move(function), num_inputs, autocast),
                           at::TensorList(tensors));
}

std::vector<at::Tensor> trainable_tensors(const torch::nn::Module& module) {
  std::vector<at::Tensor> tensors;
  collect_trainable(module, tensors);
  return tensors;
}

namespace {

// A block before everything that is trained has no backward pass.
bool keeps_anything(const torch::nn::Module& module, const std::vector<at::Tensor>& inputs) {
  const auto needs_gradient = [](const at::Tensor& input) { return input.defined() && input.requires_grad(); };
  return std::any_of(inputs.begin(), inputs.end(), needs_gradient) || !trainable_tensors(module).empty();
}

}  // namespace

std::vector<at::Tensor> run_block(const torch::nn::Module& module, const BlockFunction& function,
                                  std::vector<at::Tensor> inputs, const Recompute& recompute) {
  while (!inputs.empty() && !inputs.back().defined()) inputs.pop_back();
  if (!at::GradMode::is_enabled()) return function(inputs);
  if (recompute.all) return activation_checkpoint(function, inputs, trainable_tensors(module));
  if (recompute.planner && keeps_anything(module, inputs)) {
    const auto [recomputes, to_measure] = recompute.planner->choose(module, inputs);
    const BlockFunction block = to_measure ? measured(function, to_measure) : function;
    if (recomputes) return activation_checkpoint(block, inputs, trainable_tensors(module));
  }
  for (at::Tensor& input : inputs) {
    if (input.defined() && input.requires_grad()) input = at::alias(input);
  }
  return function(inputs);
}

at::Tensor run_block(const torch::nn::Module& module,
                     const std::function<at::Tensor(const std::vector<at::Tensor>&)>& function,
                     std::vector<at::Tensor> inputs, const Recompute& recompute) {
  const BlockFunction block = [function](const std::vector<at::Tensor>& x) {
    return std::vector<at::Tensor>{function(x)};
  };
  return run_block(module, block, std::move(inputs), recompute).front();
}

}  // namespace prefusion::nn
