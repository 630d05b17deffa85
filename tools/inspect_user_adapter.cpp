#include "core/atomic_file.h"
#include "core/error.h"
#include "nn/user_adapter.h"
#include "tools/inspection.h"
#include "unet/denoiser.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

constexpr const char* kUserPrefix = "users.";
constexpr size_t kShownUsers = 10;

void add_file_facts(const fs::path& file, Inspection& inspection) {
  const TensorMap tensors = read_safetensors(file);
  OrderedJson users = OrderedJson::array();
  int64_t num_users = 0, layers = 0;
  bool has_effect = false;
  for (const auto& [name, tensor] : tensors) {
    if (name.ends_with(".to_v_user.weight")) {
      ++layers;
      has_effect |= tensor.count_nonzero().item<int64_t>() > 0;
    }
    if (!name.starts_with(kUserPrefix) || name == kUserPrefix) continue;
    if (users.size() < kShownUsers) users.push_back(name.substr(std::string(kUserPrefix).size()));
    ++num_users;
  }
  auto& facts = inspection.facts;
  facts["file"] = file.string();
  facts["users"] = num_users;
  facts["first_users"] = users;
  const auto empty = tensors.find(kUserPrefix);
  if (empty != tensors.end() && empty->second.dim() == 2) {
    facts["user_tokens"] = empty->second.size(0);
    facts["user_width"] = empty->second.size(1);
  } else {
    inspection.problems.push_back(file.string() + ": the states of the empty user, 'users.', are missing");
  }
  facts["layers"] = layers;
  facts.update(tensor_facts(tensors, file.string(), inspection));
  if (layers > 0 && !has_effect) {
    inspection.notes.push_back("every value projection is zero: the adapter is untrained and has no effect");
  }
}

}  // namespace

Inspection inspect_user_adapter(const fs::path& file, const fs::path& model) {
  Inspection inspection{.path = file.string(), .kind = "user adapter"};
  try {
    add_file_facts(file, inspection);
    if (model.empty()) return inspection;
    check_input(fs::is_directory(model), model.string(), ": no such model folder");
    const fs::path config = unet::denoiser_folder(model) / "config.json";
    nn::UserAdapter::load(*unet::make_denoiser(read_file(config), config.string()), file);
    inspection.facts["model"] = model.string();
  } catch (const Error& error) {
    inspection.problems.push_back(error.what());
  }
  return inspection;
}

}  // namespace prefusion::tools
