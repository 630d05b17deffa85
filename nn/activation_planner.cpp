#include "nn/activation_planner.h"

#include <ATen/core/grad_mode.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "core/flop_counter.h"
#include "core/logging.h"

namespace prefusion::nn {
namespace {

// The memory that operations of this thread have given out while this lives and that somebody still holds. What they
// were given from elsewhere does not count, nor do views of it.
class HeldMemory {
 public:
  HeldMemory() : outer_(std::exchange(current(), this)) {
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(begin, end)
                                             .needsInputs(true)
                                             .needsOutputs(true)
                                             .scopes({at::RecordScope::FUNCTION}));
  }
  ~HeldMemory() {
    at::removeCallback(handle_);
    current() = outer_;
  }
  HeldMemory(const HeldMemory&) = delete;
  HeldMemory& operator=(const HeldMemory&) = delete;

  size_t bytes_without(const std::vector<at::Tensor>& outputs) const {
    std::set<const c10::StorageImpl*> left_out;
    for (const at::Tensor& output : outputs) {
      if (output.defined()) left_out.insert(output.storage().unsafeGetStorageImpl());
    }
    size_t bytes = 0;
    for (const auto& [address, storage] : made_) {
      const auto held = storage.lock();
      if (held && !left_out.contains(held.get())) bytes += held->nbytes();
    }
    return bytes;
  }

 private:
  // A weak pointer keeps the address from being given to another storage.
  using Storages = std::map<const c10::StorageImpl*, c10::weak_intrusive_ptr<c10::StorageImpl>>;

  static HeldMemory*& current() {
    thread_local HeldMemory* current = nullptr;
    return current;
  }
  // Operations that others are made of are given what these have just made.
  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
    if (current()->depth_++ > 0) return nullptr;
    for (const c10::IValue& input : function.inputs()) {
      for_each_storage(input, [](const c10::Storage& storage) { current()->enter(storage, current()->given_); });
    }
    return nullptr;
  }
  static void end(const at::RecordFunction& function, at::ObserverContext*) {
    --current()->depth_;
    for (const c10::IValue& output : function.outputs()) {
      for_each_storage(output, [](const c10::Storage& storage) { current()->enter(storage, current()->made_); });
    }
  }
  // Where it was seen first says what it is.
  void enter(const c10::Storage& storage, Storages& storages) {
    const c10::StorageImpl* address = storage.unsafeGetStorageImpl();
    if (!given_.contains(address) && !made_.contains(address)) {
      storages.emplace(address, storage.getWeakStorageImpl());
    }
  }
  template <typename Use>
  static void for_each_storage(const c10::IValue& value, const Use& use) {
    const auto use_tensor = [&](const at::Tensor& tensor) {
      if (tensor.defined() && tensor.has_storage()) use(tensor.storage());
    };
    if (value.isTensor()) use_tensor(value.toTensor());
    if (!value.isTensorList()) return;
    for (const at::Tensor& tensor : value.toTensorVector()) use_tensor(tensor);
  }

  HeldMemory* outer_;
  at::CallbackHandle handle_;
  int depth_ = 0;  // of operations within operations
  Storages made_, given_;
};

std::vector<std::vector<int64_t>> shapes_of(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<int64_t>> shapes;
  for (const at::Tensor& tensor : tensors) {
    shapes.push_back(tensor.defined() ? tensor.sizes().vec() : std::vector<int64_t>());
    if (tensor.defined()) shapes.back().push_back(static_cast<int64_t>(tensor.scalar_type()));
  }
  return shapes;
}

// How many operations a byte costs that is not kept.
double price(const ActivationPlanner::Cost& cost) {
  return static_cast<double>(cost.operations) / static_cast<double>(std::max<size_t>(cost.kept_bytes, 1));
}

double gigabytes(size_t bytes) {
  return static_cast<double>(bytes) / 1e9;
}

}  // namespace

BlockFunction measured(BlockFunction function, std::shared_ptr<ActivationPlanner::Cost> cost) {
  return [function = std::move(function), cost = std::move(cost)](const std::vector<at::Tensor>& inputs) {
    if (!at::GradMode::is_enabled() || cost->is_known) return function(inputs);
    const FlopCounter counter;
    const HeldMemory memory;
    std::vector<at::Tensor> outputs = function(inputs);
    *cost = {.kept_bytes = memory.bytes_without(outputs), .operations = counter.total(), .is_known = true};
    return outputs;
  };
}

ActivationPlanner::Choice ActivationPlanner::choose(const torch::nn::Module& block,
                                                    const std::vector<at::Tensor>& inputs) {
  if (first_ == nullptr) first_ = &block;
  if (first_ == &block) begin_pass(inputs);
  const auto [found, is_new] = pass_->numbers.try_emplace(&block, pass_->costs.size());
  if (is_new) pass_->costs.push_back(std::make_shared<Cost>());
  const size_t number = found->second;
  if (number < pass_->recomputes.size()) return {.recomputes = pass_->recomputes[number], .to_measure = nullptr};
  return {.recomputes = true, .to_measure = pass_->costs[number]};
}

void ActivationPlanner::begin_pass(const std::vector<at::Tensor>& inputs) {
  pass_ = &passes_[shapes_of(inputs)];
  const auto& costs = pass_->costs;
  const bool is_known =
      !costs.empty() && std::all_of(costs.begin(), costs.end(), [](const auto& cost) { return cost->is_known; });
  if (is_known && pass_->recomputes.empty()) make_plan(*pass_);
}

std::vector<bool> ActivationPlanner::plan(const std::vector<Cost>& costs, size_t budget_bytes) {
  std::vector<size_t> by_price(costs.size());
  std::iota(by_price.begin(), by_price.end(), size_t{0});
  std::stable_sort(by_price.begin(), by_price.end(),
                   [&](size_t a, size_t b) { return price(costs[a]) > price(costs[b]); });
  std::vector<bool> recomputes(costs.size(), true);
  const auto largest_recomputed = [&] {
    size_t largest = 0;
    for (size_t i = 0; i < costs.size(); ++i) {
      if (recomputes[i]) largest = std::max(largest, costs[i].kept_bytes);
    }
    return largest;
  };
  // The largest block at work is the least there is.
  budget_bytes = std::max(budget_bytes, largest_recomputed());
  size_t kept = 0;
  for (const size_t i : by_price) {
    recomputes[i] = false;
    if (kept + costs[i].kept_bytes + largest_recomputed() <= budget_bytes) {
      kept += costs[i].kept_bytes;
    } else {
      recomputes[i] = true;
    }
  }
  return recomputes;
}

void ActivationPlanner::make_plan(Pass& pass) const {
  std::vector<Cost> costs;
  for (const auto& cost : pass.costs) costs.push_back(*cost);
  pass.recomputes = plan(costs, budget_bytes_);
  size_t kept = 0, whole = 0, largest = 0;
  int64_t again = 0, operations = 0, num_recomputed = 0;
  for (size_t i = 0; i < costs.size(); ++i) {
    whole += costs[i].kept_bytes;
    operations += costs[i].operations;
    if (!pass.recomputes[i]) {
      kept += costs[i].kept_bytes;
      continue;
    }
    ++num_recomputed;
    again += costs[i].operations;
    largest = std::max(largest, costs[i].kept_bytes);
  }
  log_info("activations: blocks keep ", gigabytes(kept), " of ", gigabytes(whole), " GB; ", num_recomputed, " of ",
           costs.size(), " are computed again, ",
           operations > 0 ? std::lround(100.0 * static_cast<double>(again) / static_cast<double>(operations)) : 0,
           " % of their operations");
  if (kept + largest > budget_bytes_) {
    log_warn("activations: the largest block alone keeps ", gigabytes(largest), " GB while it is computed again, more ",
             "than the ", gigabytes(budget_bytes_), " GB that are allowed");
  }
}

}  // namespace prefusion::nn
