#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace prefusion {

// A value of a pickle. Values live in the Pickle that read them and refer to each other freely, also in circles.
struct PickleValue {
  enum class Kind {
    kNone,
    kBool,
    kInt,
    kFloat,
    kText,
    kTuple,
    kList,
    kDict,    // also an object: its attributes
    kGlobal,  // "module name" of something in Python, which is never looked up
    kOther,   // made by the hooks; `tag` is theirs
  };
  Kind kind = Kind::kNone;
  int64_t number = 0;                                                    // of kBool and kInt
  double real = 0;                                                       // of kFloat
  std::string text;                                                      // of kText and kGlobal
  std::vector<const PickleValue*> items;                                 // of kTuple and kList
  std::vector<std::pair<const PickleValue*, const PickleValue*>> pairs;  // of kDict, in order
  int64_t tag = -1;

  bool is(Kind wanted) const { return kind == wanted; }
  bool is_global(std::string_view name) const { return kind == Kind::kGlobal && text == name; }
};

// What becomes of the instructions by which a pickle could run code. Nothing of it is ever executed: a hook maps names
// it knows to values and refuses the rest by an input error.
struct PickleHooks {
  // REDUCE and NEWOBJ: a global called with a tuple.
  std::function<PickleValue(const std::string& global, const PickleValue& arguments)> call;
  // A reference to something outside of the pickle.
  std::function<PickleValue(const PickleValue& id)> persistent;
};

// Reads pickles of the protocols 2 to 5, instruction by instruction, bounds-checked.
class Pickle {
 public:
  // Reads one pickle from the start of `bytes`. Input error, naming `where`, for what is malformed or not supported.
  Pickle(std::string_view bytes, const PickleHooks& hooks, std::string where);

  const PickleValue& root() const { return *root_; }
  size_t size() const { return position_; }  // bytes read

 private:
  using Value = PickleValue;

  void run();
  void execute(uint8_t instruction);
  bool execute_constant(uint8_t instruction);
  bool execute_container(uint8_t instruction);
  bool execute_memo(uint8_t instruction);
  bool execute_call(uint8_t instruction);

  std::string_view take(size_t size);
  template <typename T>
  T take_number();
  int64_t take_long(size_t size);
  std::string_view take_line();

  Value& make(Value value);
  void push(Value value) { stack_.push_back(&make(std::move(value))); }
  void push_text(std::string_view text) { push({.kind = Value::Kind::kText, .text = std::string(text)}); }
  Value& pop();
  Value& top(Value::Kind kind);
  std::vector<const Value*> pop_to_mark();
  void add_pairs(Value& dict, const std::vector<const Value*>& items);
  void memoize(uint64_t index);
  [[noreturn]] void fail(const std::string& what) const;

  std::string_view bytes_;
  const PickleHooks& hooks_;
  std::string where_;
  size_t position_ = 0;
  std::deque<Value> values_;
  std::vector<Value*> stack_;
  std::vector<size_t> marks_;
  std::vector<Value*> memo_;
  uint64_t num_memoized_ = 0;
  const Value* root_ = nullptr;
};

}  // namespace prefusion
