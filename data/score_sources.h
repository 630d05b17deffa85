#pragma once

#include <memory>

#include "data/score_source.h"

// One function a kind of input; ScoreInputs chooses among them.
namespace prefusion::data {

// Pictures of a folder in the order of their names. The prompt is in NAME.txt or NAME.caption beside each. With a
// prompts.jsonl, metadata.jsonl or metadata.csv in the folder, its rows come first, in their order, and then the
// pictures it does not name.
std::unique_ptr<ScoreSource> open_picture_folder(const std::filesystem::path& folder, bool recursive);

// Rows of a JSONL manifest: {"image", "prompt"} or {"images": [...], "prompt"} and its relatives (docs/formats.md).
// Paths are relative to `folder`; `shown_prefix` goes before them in ScoreItem::image.
std::unique_ptr<ScoreSource> open_jsonl_manifest(const std::filesystem::path& file,
                                                 const std::filesystem::path& shown_prefix = {});

// Rows of a CSV file with a header; columns as in a JSONL manifest.
std::unique_ptr<ScoreSource> open_csv_manifest(const std::filesystem::path& file,
                                               const std::filesystem::path& shown_prefix = {});

// Rows of a Parquet file: Pick-a-Pic's layout (two pictures a row), ranked lists, or a column of pictures.
std::unique_ptr<ScoreSource> open_parquet_pictures(const std::filesystem::path& file);

// Samples of a WebDataset shard: members that follow each other and share a name up to its first dot.
std::unique_ptr<ScoreSource> open_tar_shard(const std::filesystem::path& file);

}  // namespace prefusion::data
