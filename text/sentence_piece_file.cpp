#include "text/sentence_piece_file.h"

#include <cstring>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr uint64_t kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3;  // of the model
constexpr uint64_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;     // of a piece
constexpr uint64_t kModelType = 3;                                      // of the trainer's settings
constexpr uint64_t kPrecompiledCharsmap = 2;                            // of the normalizer's settings
enum class WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  uint64_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;      // of a varint, or the bits of a fixed-size number
  std::string_view bytes;  // of a text or a nested message
};

// Walks over the fields of one message.
class WireReader {
 public:
  WireReader(std::string_view message, const std::string& where) : rest_(message), where_(where) {}

  bool next(Field& field) {
    if (rest_.empty()) return false;
    const uint64_t tag = read_varint();
    field = {.number = tag >> 3, .type = static_cast<WireType>(tag & 7)};
    check_input(field.number > 0, where_, ": is no SentencePiece model (a field has the number 0)");
    switch (field.type) {
      case WireType::kVarint: field.value = read_varint(); break;
      case WireType::kFixed64: field.value = read_fixed(8); break;
      case WireType::kFixed32: field.value = read_fixed(4); break;
      case WireType::kBytes: field.bytes = take(read_varint()); break;
      default: fail_input(where_, ": is no SentencePiece model (a field has the wire type ", tag & 7, ")");
    }
    return true;
  }

 private:
  std::string_view take(uint64_t count) {
    check_input(count <= rest_.size(), where_, ": is cut off or no SentencePiece model (a field of ", count,
                " bytes where ", rest_.size(), " are left)");
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  uint64_t read_varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1).front());
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail_input(where_, ": is no SentencePiece model (a number has more than ten bytes)");
  }

  uint64_t read_fixed(size_t size) {
    uint64_t value = 0;  // little-endian, as this machine is
    std::memcpy(&value, take(size).data(), size);
    return value;
  }

  std::string_view rest_;
  const std::string& where_;
};

void check_type(const Field& field, WireType expected, const std::string& where) {
  check_input(field.type == expected, where, ": is no SentencePiece model (field ", field.number, " has another type)");
}

SentencePiece parse_piece(std::string_view message, size_t id, const std::string& where) {
  SentencePiece piece;
  WireReader reader(message, where);
  for (Field field; reader.next(field);) {
    if (field.number == kPieceText) {
      check_type(field, WireType::kBytes, where);
      piece.text = field.bytes;
      check_input(find_invalid_utf8(piece.text) == std::string::npos, where, ": piece ", id, " is not valid UTF-8");
    } else if (field.number == kPieceScore) {
      check_type(field, WireType::kFixed32, where);
      const auto bits = static_cast<uint32_t>(field.value);
      std::memcpy(&piece.score, &bits, sizeof bits);
    } else if (field.number == kPieceType) {
      check_type(field, WireType::kVarint, where);
      check_input(field.value >= 1 && field.value <= 6, where, ": piece ", id, " is of the unknown type ", field.value);
      piece.type = static_cast<SentencePiece::Type>(field.value);
    }
  }
  return piece;
}

void parse_trainer_spec(std::string_view message, SentencePieceFile& file, const std::string& where) {
  WireReader reader(message, where);
  for (Field field; reader.next(field);) {
    if (field.number != kModelType) continue;
    check_type(field, WireType::kVarint, where);
    check_input(field.value >= 1 && field.value <= 4, where, ": the model is of the unknown type ", field.value);
    file.model_type = static_cast<SentencePieceFile::ModelType>(field.value);
  }
}

void parse_normalizer_spec(std::string_view message, SentencePieceFile& file, const std::string& where) {
  WireReader reader(message, where);
  for (Field field; reader.next(field);) {
    if (field.number != kPrecompiledCharsmap) continue;
    check_type(field, WireType::kBytes, where);
    file.precompiled_charsmap = field.bytes;
  }
}

}  // namespace

SentencePieceFile parse_sentence_piece_file(std::string_view bytes, const std::string& where) {
  SentencePieceFile file;
  WireReader reader(bytes, where);
  std::set<uint64_t> found;
  for (Field field; reader.next(field);) {
    if (field.number > kNormalizerSpec) continue;
    found.insert(field.number);
    check_type(field, WireType::kBytes, where);
    if (field.number == kPieces) file.pieces.push_back(parse_piece(field.bytes, file.pieces.size(), where));
    if (field.number == kTrainerSpec) parse_trainer_spec(field.bytes, file, where);
    if (field.number == kNormalizerSpec) parse_normalizer_spec(field.bytes, file, where);
  }
  check_input(found.contains(kPieces), where, ": is no SentencePiece model (it has no pieces)");
  check_input(found.contains(kTrainerSpec) && found.contains(kNormalizerSpec), where,
              ": is cut off (the settings behind the pieces are missing)");
  return file;
}

SentencePieceFile read_sentence_piece_file(const std::filesystem::path& path) {
  return parse_sentence_piece_file(read_file(path), path.string());
}

}  // namespace prefusion::text
