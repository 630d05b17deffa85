#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace prefusion::text {

// A piece of a SentencePiece vocabulary; its id is its position.
struct SentencePiece {
  enum class Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  std::string text;
  float score = 0;
  Type type = Type::kNormal;
};

// What counts of a SentencePiece model (spiece.model), a message in the wire format of Protocol Buffers.
struct SentencePieceFile {
  enum class ModelType { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };
  std::vector<SentencePiece> pieces;
  ModelType model_type = ModelType::kUnigram;
  std::string precompiled_charsmap;  // of the normalizer; empty where text is left as it is
};

// Input error for bytes that are no such message, or have no pieces; `where` names them. Read here rather than by
// libsentencepiece, whose interface does not give the charsmap, and whose protobuf shares its symbols with the one
// inside LibTorch.
SentencePieceFile parse_sentence_piece_file(std::string_view bytes, const std::string& where);
SentencePieceFile read_sentence_piece_file(const std::filesystem::path& path);

}  // namespace prefusion::text
