#include "core/device.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>

#include "core/error.h"
#include "core/prediction_type.h"

namespace prefusion {

namespace {

// libtorch_cuda registers the CUDA kernels when it is loaded. Loading it takes seconds and hundreds of megabytes, so
// that happens only where there is a driver it could talk to.
void load_cuda() {
  static const bool is_loaded = dlopen("libcuda.so.1", RTLD_LAZY) && dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL);
  (void)is_loaded;
}

}  // namespace

at::Device parse_device(const std::string& name) {
  if (name != "cpu") load_cuda();
  const bool has_cuda = at::hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0;
  if (name == "auto") return has_cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (name == "cpu") return at::Device(at::kCPU);
  if (name != "cuda" && !name.starts_with("cuda:")) {
    fail_usage("--device ", name, ": expected auto, cpu, cuda or cuda:N");
  }
  check_usage(has_cuda, "--device ", name, ": no CUDA device is available; use --device cpu");
  int index = 0;
  if (name != "cuda") {
    try {
      index = std::stoi(name.substr(5));
    } catch (const std::exception&) {
      fail_usage("--device ", name, ": expected a number after 'cuda:'");
    }
  }
  const int count = static_cast<int>(at::detail::getCUDAHooks().deviceCount());
  check_usage(index >= 0 && index < count, "--device ", name, ": this machine has ", count, " CUDA device(s)");
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

at::ScalarType parse_dtype(const std::string& name) {
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  if (name == "fp16") return at::kHalf;
  fail_usage("--dtype ", name, ": expected fp32, bf16 or fp16");
}

at::Tensor to_device(const at::Tensor& tensor, at::Device device) {
  if (!device.is_cuda() || !tensor.device().is_cpu()) return tensor.to(device);
  return tensor.pin_memory().to(device, /*non_blocking=*/true);
}

const char* dtype_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat: return "fp32";
    case at::kBFloat16: return "bf16";
    case at::kHalf: return "fp16";
    default: return c10::toString(dtype);
  }
}

PredictionType parse_prediction_type(std::string_view name, const std::string& where) {
  if (name == "epsilon") return PredictionType::kEpsilon;
  if (name == "v_prediction") return PredictionType::kVPrediction;
  if (name == "sample") return PredictionType::kSample;
  if (name == "flow_prediction") return PredictionType::kFlow;
  fail_input(where, ": prediction_type '", name, "' is not supported (epsilon, v_prediction, sample, flow_prediction)");
}

const char* prediction_type_name(PredictionType type) {
  switch (type) {
    case PredictionType::kEpsilon: return "epsilon";
    case PredictionType::kVPrediction: return "v_prediction";
    case PredictionType::kSample: return "sample";
    case PredictionType::kFlow: return "flow_prediction";
  }
  return "?";
}

}  // namespace prefusion
