#include "core/torch_storage.h"

#include <ATen/ATen.h>

#include <array>
#include <cstring>

#include "core/error.h"

namespace prefusion {
namespace {

using Kind = PickleValue::Kind;

constexpr const char* kStorageText = "storage";
constexpr const char* kTensorText = "tensor";
constexpr size_t kMaxDimensions = 64;

struct DtypeNames {
  const char* storage;  // the class of typed storages
  const char* dtype;    // torch.<name>
  at::ScalarType type;
};

constexpr std::array kDtypes = {
    DtypeNames{"DoubleStorage", "float64", at::kDouble},
    DtypeNames{"FloatStorage", "float32", at::kFloat},
    DtypeNames{"HalfStorage", "float16", at::kHalf},
    DtypeNames{"BFloat16Storage", "bfloat16", at::kBFloat16},
    DtypeNames{"LongStorage", "int64", at::kLong},
    DtypeNames{"IntStorage", "int32", at::kInt},
    DtypeNames{"ShortStorage", "int16", at::kShort},
    DtypeNames{"CharStorage", "int8", at::kChar},
    DtypeNames{"ByteStorage", "uint8", at::kByte},
    DtypeNames{"BoolStorage", "bool", at::kBool},
    DtypeNames{"ComplexFloatStorage", "complex64", at::kComplexFloat},
    DtypeNames{"ComplexDoubleStorage", "complex128", at::kComplexDouble},
    DtypeNames{"", "float8_e4m3fn", at::kFloat8_e4m3fn},
    DtypeNames{"", "float8_e5m2", at::kFloat8_e5m2},
    DtypeNames{"", "uint16", at::kUInt16},
    DtypeNames{"", "uint32", at::kUInt32},
    DtypeNames{"", "uint64", at::kUInt64},
};

// What a training script's other values are made by; they hold no tensors under a name, so that their content is
// dropped. Each of them only makes a container, a number or a text.
constexpr std::array kHarmless = {
    "torch Size",
    "torch device",
    "torch.serialization _get_layout",
    "_codecs encode",
    "__builtin__ set",
    "builtins set",
    // Lists and typed values in TorchScript.
    "torch.jit._pickle build_intlist",
    "torch.jit._pickle build_doublelist",
    "torch.jit._pickle build_boollist",
    "torch.jit._pickle build_tensorlist",
    "torch.jit._pickle restore_type_tag",
};

std::vector<int64_t> read_integers(const PickleValue& tuple, const std::string& where) {
  std::vector<int64_t> numbers;
  check_input(tuple.is(Kind::kTuple) || tuple.is(Kind::kList), where, ": a tensor whose shape is no list of numbers");
  for (const PickleValue* item : tuple.items) {
    check_input(item->is(Kind::kInt), where, ": a tensor whose shape is no list of numbers");
    numbers.push_back(item->number);
  }
  return numbers;
}

}  // namespace

TorchPickle::TorchPickle(std::string where) : where_(std::move(where)) {
  hooks_.call = [this](const std::string& global, const PickleValue& arguments) { return call(global, arguments); };
  hooks_.persistent = [this](const PickleValue& id) { return read_storage(id); };
}

bool TorchPickle::is_tensor(const PickleValue& value) {
  return value.is(Kind::kOther) && value.text == kTensorText;
}

const TorchStorage& TorchPickle::storage_of(const PickleValue& tensor) const {
  return storages_[views_[static_cast<size_t>(tensor.tag)].storage];
}

PickleValue TorchPickle::call(const std::string& global, const PickleValue& arguments) {
  if (global == "collections OrderedDict" || global == "collections defaultdict" || global == "collections Counter") {
    return {.kind = Kind::kDict};  // the items follow
  }
  // An object of a TorchScript archive: its attributes follow.
  if (global.starts_with("__torch__")) return {.kind = Kind::kDict, .tag = 0};
  if (global == "torch._utils _rebuild_tensor_v2" || global == "torch._utils _rebuild_tensor_v3") {
    return rebuild_tensor(global, arguments);
  }
  if (global == "torch._utils _rebuild_parameter" || global == "torch._utils _rebuild_parameter_with_state" ||
      global == "torch.nn.parameter Parameter") {
    check_input(!arguments.items.empty() && is_tensor(*arguments.items[0]), where_, ": a parameter without a tensor");
    return *arguments.items[0];
  }
  for (const char* name : kHarmless) {
    if (global == name) return {.kind = Kind::kOther};
  }
  std::string dotted = global;
  std::replace(dotted.begin(), dotted.end(), ' ', '.');
  fail_input(where_, ": loading it in Python would run '", dotted,
             "', which is refused; save its tensors alone, in a dict or as safetensors");
}

// ("storage", class, key, device, numel), with a view of another storage after it in old files.
PickleValue TorchPickle::read_storage(const PickleValue& id) {
  const auto& items = id.items;
  const bool is_storage = id.is(Kind::kTuple) && items.size() >= 5 && items[0]->is(Kind::kText) &&
                          items[0]->text == "storage" && items[1]->is(Kind::kGlobal) && items[2]->is(Kind::kText) &&
                          items[4]->is(Kind::kInt) && items[4]->number >= 0;
  check_input(is_storage, where_, ": refers to something outside of its pickle that is no storage of a tensor");
  check_input(items.size() == 5 || items[5]->is(Kind::kNone), where_,
              ": has storages that are parts of others, as torch before 0.4 wrote them; save it again");
  TorchStorage storage{.key = items[2]->text, .numel = items[4]->number};
  const std::string& name = items[1]->text;
  bool is_known = name == "torch.storage UntypedStorage" || name == "torch UntypedStorage";
  for (const DtypeNames& names : kDtypes) {
    if (*names.storage == '\0' || name != concat("torch ", names.storage)) continue;
    storage.dtype = names.type;
    is_known = true;
  }
  check_input(is_known, where_, ": has a storage of '", name, "', which is not supported");
  storages_.push_back(std::move(storage));
  return {.kind = Kind::kOther, .text = kStorageText, .tag = static_cast<int64_t>(storages_.size()) - 1};
}

// (storage, offset, sizes, strides, requires_grad, hooks), in version 3 with the dtype after it.
PickleValue TorchPickle::rebuild_tensor(const std::string& global, const PickleValue& arguments) {
  const auto& items = arguments.items;
  const bool has_dtype = global.ends_with("v3");
  check_input(items.size() >= (has_dtype ? 7 : 4) && items[0]->is(Kind::kOther) && items[0]->text == kStorageText &&
                  items[1]->is(Kind::kInt),
              where_, ": a tensor without a storage");
  View view{.storage = static_cast<size_t>(items[0]->tag),
            .dtype = at::kFloat,
            .offset = items[1]->number,
            .sizes = read_integers(*items[2], where_),
            .strides = read_integers(*items[3], where_)};
  std::optional<at::ScalarType> dtype = storages_[view.storage].dtype;
  for (const DtypeNames& names : kDtypes) {
    if (has_dtype && items[6]->is_global(concat("torch ", names.dtype))) dtype = names.type;
  }
  check_input(dtype.has_value(), where_, ": a tensor of ",
              has_dtype && items[6]->is(Kind::kGlobal) ? "'" + items[6]->text + "'" : "no dtype",
              ", which is not supported");
  view.dtype = *dtype;
  check_view(view);
  views_.push_back(std::move(view));
  return {.kind = Kind::kOther, .text = kTensorText, .tag = static_cast<int64_t>(views_.size()) - 1};
}

// What does not depend on the storage's bytes: the element count and the furthest element must be numbers.
void TorchPickle::check_view(const View& view) const {
  check_input(view.sizes.size() == view.strides.size() && view.sizes.size() <= kMaxDimensions && view.offset >= 0,
              where_, ": a tensor of shape ", shape_text(view.sizes), " with strides ", shape_text(view.strides));
  auto count = static_cast<int64_t>(c10::elementSize(view.dtype));
  int64_t last = view.offset;
  for (size_t i = 0; i < view.sizes.size(); ++i) {
    const int64_t size = view.sizes[i];
    int64_t step = 0;
    const bool fits = size >= 0 && view.strides[i] >= 0 &&
                      !__builtin_mul_overflow(count, std::max<int64_t>(size, 1), &count) &&
                      !__builtin_mul_overflow(std::max<int64_t>(size - 1, 0), view.strides[i], &step) &&
                      !__builtin_add_overflow(last, step, &last);
    check_input(fits, where_, ": a tensor of shape ", shape_text(view.sizes), " with strides ",
                shape_text(view.strides), ", which is out of range");
  }
}

at::Tensor TorchPickle::tensor(const PickleValue& value, const StorageBytes& bytes) const {
  const View& view = views_[static_cast<size_t>(value.tag)];
  const TorchStorage& storage = storages_[view.storage];
  const size_t unit = storage.dtype ? c10::elementSize(*storage.dtype) : 1;
  size_t expected = 0;
  check_input(!__builtin_mul_overflow(static_cast<size_t>(storage.numel), unit, &expected) && expected == bytes.size,
              where_, ": storage '", storage.key, "' has ", bytes.size, " bytes, but should have ", storage.numel,
              " times ", unit, "; the file is truncated or damaged");
  const size_t element = c10::elementSize(view.dtype);
  const auto options = at::TensorOptions().dtype(view.dtype);
  const bool is_empty = std::find(view.sizes.begin(), view.sizes.end(), 0) != view.sizes.end();
  if (is_empty) return at::empty(view.sizes, options);
  auto last = static_cast<size_t>(view.offset);
  for (size_t i = 0; i < view.sizes.size(); ++i) last += static_cast<size_t>((view.sizes[i] - 1) * view.strides[i]);
  check_input(last < bytes.size / element, where_, ": a tensor of shape ", shape_text(view.sizes),
              " reaches beyond its storage '", storage.key, "'");
  char* data = bytes.data + static_cast<size_t>(view.offset) * element;
  if (reinterpret_cast<uintptr_t>(data) % element == 0) {
    return at::from_blob(
        data, view.sizes, view.strides, [owner = bytes.owner](void*) {}, options);
  }
  // Only files that torch did not write are not aligned; vectorised kernels may not load such data in place.
  const size_t begin = static_cast<size_t>(view.offset);
  at::Tensor copy = at::empty({static_cast<int64_t>(last - begin + 1)}, options);
  std::memcpy(copy.data_ptr(), data, copy.nbytes());
  return copy.as_strided(view.sizes, view.strides);
}

}  // namespace prefusion
