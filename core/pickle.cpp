#include "core/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"

namespace prefusion {
namespace {

using Kind = PickleValue::Kind;

// A pickle of tensors has a few values a tensor; a hostile one could turn every byte into one of a hundred.
constexpr size_t kMaxValues = 4'000'000;
constexpr uint64_t kMaxMemo = kMaxValues;

// The instructions of protocols 2 to 5 (pickletools lists them).
enum Instruction : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersistent = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kEmptyList = ']',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kDict = 'd',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kList = 'l',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyTuple = ')',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kProtocol = 0x80,
  kNewObject = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kLong4 = 0x8b,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

}  // namespace

Pickle::Pickle(std::string_view bytes, const PickleHooks& hooks, std::string where)
    : bytes_(bytes), hooks_(hooks), where_(std::move(where)) {
  run();
}

void Pickle::fail(const std::string& what) const {
  fail_input(where_, ": malformed pickle at byte ", position_, " (", what, ")");
}

std::string_view Pickle::take(size_t size) {
  if (size > bytes_.size() - position_) fail("it is cut off");
  const std::string_view taken = bytes_.substr(position_, size);
  position_ += size;
  return taken;
}

template <typename T>
T Pickle::take_number() {
  T number;
  std::memcpy(&number, take(sizeof(T)).data(), sizeof(T));  // little endian, as every supported host is
  return number;
}

// Two's complement of any width; what a file of tensors counts fits 64 bits.
int64_t Pickle::take_long(size_t size) {
  const std::string_view digits = take(size);
  if (size > 8) fail("a number of more than 64 bits");
  if (size == 0) return 0;
  uint64_t number = static_cast<unsigned char>(digits.back()) & 0x80 ? ~uint64_t{0} : 0;
  for (size_t i = size; i-- > 0;) number = number << 8 | static_cast<unsigned char>(digits[i]);
  return static_cast<int64_t>(number);
}

std::string_view Pickle::take_line() {
  const size_t end = bytes_.find('\n', position_);
  if (end == std::string_view::npos) fail("a name without an end");
  const std::string_view line = take(end - position_);
  ++position_;
  return line;
}

PickleValue& Pickle::make(Value value) {
  if (values_.size() >= kMaxValues) fail(concat("more than ", kMaxValues, " values"));
  values_.push_back(std::move(value));
  return values_.back();
}

PickleValue& Pickle::pop() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("nothing left on the stack");
  Value* value = stack_.back();
  stack_.pop_back();
  return *value;
}

PickleValue& Pickle::top(Kind kind) {
  Value& value = pop();
  if (!value.is(kind)) fail("a value of another type than the instruction needs");
  stack_.push_back(&value);
  return value;
}

std::vector<const PickleValue*> Pickle::pop_to_mark() {
  if (marks_.empty()) fail("no mark on the stack");
  const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  std::vector<const Value*> items(begin, stack_.end());
  stack_.erase(begin, stack_.end());
  marks_.pop_back();
  return items;
}

void Pickle::add_pairs(Value& dict, const std::vector<const Value*>& items) {
  if (items.size() % 2 != 0) fail("a key without a value");
  for (size_t i = 0; i < items.size(); i += 2) dict.pairs.emplace_back(items[i], items[i + 1]);
}

void Pickle::memoize(uint64_t index) {
  if (index > kMaxMemo) fail("a memo of unreasonable size");
  if (index >= memo_.size()) memo_.resize(std::max<size_t>(index + 1, memo_.size() * 2), nullptr);
  Value& value = pop();
  stack_.push_back(&value);
  num_memoized_ += memo_[index] == nullptr;
  memo_[index] = &value;
}

void Pickle::run() {
  while (root_ == nullptr) {
    const auto instruction = take_number<uint8_t>();
    if (instruction == kStop) {
      root_ = &pop();
    } else {
      execute(instruction);
    }
  }
}

void Pickle::execute(uint8_t instruction) {
  if (execute_constant(instruction) || execute_container(instruction) || execute_memo(instruction) ||
      execute_call(instruction)) {
    return;
  }
  if (instruction == kProtocol) {
    const auto version = take_number<uint8_t>();
    if (version < 2 || version > 5) fail(concat("protocol ", int{version}, "; only 2 to 5 are supported"));
  } else if (instruction == kFrame) {
    take_number<uint64_t>();  // a hint for streams
  } else if (instruction == kPop) {
    pop();
  } else if (instruction == kPopMark) {
    pop_to_mark();
  } else if (instruction == kDup) {
    Value& value = pop();
    stack_.insert(stack_.end(), 2, &value);
  } else {
    --position_;
    fail(concat("instruction ", int{instruction}, ", which no file of tensors has"));
  }
}

bool Pickle::execute_constant(uint8_t instruction) {
  const auto integer = [&](int64_t number) { push({.kind = Kind::kInt, .number = number}); };
  const auto truth = [&](bool is_true) { push({.kind = Kind::kBool, .number = is_true}); };
  switch (instruction) {
    case kNone: push({}); return true;
    case kNewTrue: truth(true); return true;
    case kNewFalse: truth(false); return true;
    case kBinInt: integer(take_number<int32_t>()); return true;
    case kBinInt1: integer(take_number<uint8_t>()); return true;
    case kBinInt2: integer(take_number<uint16_t>()); return true;
    case kLong1: integer(take_long(take_number<uint8_t>())); return true;
    case kLong4: integer(take_long(take_number<uint32_t>())); return true;
    case kBinFloat: {
      const auto bits = __builtin_bswap64(take_number<uint64_t>());  // the one number that is big endian
      push({.kind = Kind::kFloat, .real = std::bit_cast<double>(bits)});
      return true;
    }
    case kShortBinUnicode:
    case kShortBinString:
    case kShortBinBytes: push_text(take(take_number<uint8_t>())); return true;
    case kBinUnicode:
    case kBinString:
    case kBinBytes: push_text(take(take_number<uint32_t>())); return true;
    case kBinUnicode8:
    case kBinBytes8: push_text(take(take_number<uint64_t>())); return true;
    default: return false;
  }
}

bool Pickle::execute_container(uint8_t instruction) {
  const auto tuple_of = [&](size_t count) {
    Value tuple{.kind = Kind::kTuple, .items = std::vector<const Value*>(count)};
    for (size_t i = count; i-- > 0;) tuple.items[i] = &pop();
    push(std::move(tuple));
  };
  switch (instruction) {
    case kMark: marks_.push_back(stack_.size()); return true;
    case kEmptyList: push({.kind = Kind::kList}); return true;
    case kEmptyDict: push({.kind = Kind::kDict}); return true;
    case kEmptyTuple: tuple_of(0); return true;
    case kTuple1: tuple_of(1); return true;
    case kTuple2: tuple_of(2); return true;
    case kTuple3: tuple_of(3); return true;
    case kTuple: push({.kind = Kind::kTuple, .items = pop_to_mark()}); return true;
    case kList: push({.kind = Kind::kList, .items = pop_to_mark()}); return true;
    case kDict: {
      const std::vector<const Value*> items = pop_to_mark();
      push({.kind = Kind::kDict});
      add_pairs(*stack_.back(), items);
      return true;
    }
    case kAppend: {
      const Value& item = pop();
      top(Kind::kList).items.push_back(&item);
      return true;
    }
    case kAppends: {
      const std::vector<const Value*> items = pop_to_mark();
      Value& list = top(Kind::kList);
      list.items.insert(list.items.end(), items.begin(), items.end());
      return true;
    }
    case kSetItem: {
      const Value& value = pop();
      const Value& key = pop();
      add_pairs(top(Kind::kDict), {&key, &value});
      return true;
    }
    case kSetItems: {
      const std::vector<const Value*> items = pop_to_mark();
      add_pairs(top(Kind::kDict), items);
      return true;
    }
    default: return false;
  }
}

bool Pickle::execute_memo(uint8_t instruction) {
  const auto recall = [&](uint64_t index) {
    if (index >= memo_.size() || memo_[index] == nullptr) fail("it refers to a value that it never kept");
    stack_.push_back(memo_[index]);
  };
  switch (instruction) {
    case kBinPut: memoize(take_number<uint8_t>()); return true;
    case kLongBinPut: memoize(take_number<uint32_t>()); return true;
    case kMemoize: memoize(num_memoized_); return true;
    case kBinGet: recall(take_number<uint8_t>()); return true;
    case kLongBinGet: recall(take_number<uint32_t>()); return true;
    default: return false;
  }
}

bool Pickle::execute_call(uint8_t instruction) {
  switch (instruction) {
    case kGlobal: {
      const std::string module(take_line());
      push({.kind = Kind::kGlobal, .text = module + ' ' + std::string(take_line())});
      return true;
    }
    case kStackGlobal: {
      const Value& name = pop();
      const Value& module = pop();
      if (!name.is(Kind::kText) || !module.is(Kind::kText)) fail("a global whose name is no text");
      push({.kind = Kind::kGlobal, .text = module.text + ' ' + name.text});
      return true;
    }
    case kReduce:
    case kNewObject: {
      const Value& arguments = pop();
      const Value& function = pop();
      if (!function.is(Kind::kGlobal) || !arguments.is(Kind::kTuple)) fail("a call of something that has no name");
      push(hooks_.call(function.text, arguments));
      return true;
    }
    case kBinPersistent: {
      const Value& id = pop();
      push(hooks_.persistent(id));
      return true;
    }
    case kBuild: {
      // The attributes of an object; of a dict's own ones (an OrderedDict's `_metadata`) none matters.
      const Value& state = pop();
      Value& object = pop();
      if (!object.is(Kind::kDict)) fail("attributes of something that has none");
      if (object.tag >= 0 && state.is(Kind::kDict)) object.pairs = state.pairs;
      stack_.push_back(&object);
      return true;
    }
    default: return false;
  }
}

}  // namespace prefusion
