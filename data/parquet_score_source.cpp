#include <arrow/record_batch.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "data/arrow_value.h"
#include "data/manifest_fields.h"
#include "data/parquet_table.h"
#include "data/score_sources.h"

namespace prefusion::data {
namespace {

constexpr int64_t kSegmentBytes = int64_t{32} << 20;
constexpr int64_t kMaxItems = 4096;

enum class Layout { kPair, kList, kSingle };

// Columns a generic table may have its pictures in: Hugging Face's image struct, or encoded bytes.
constexpr const char* kPictureColumns[] = {"image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes"};

template <typename Names>
std::string first_column(const ParquetTable& table, const Names& names) {
  for (const char* name : names) {
    if (table.has_column(name)) return name;
  }
  return "";
}

bool is_picture_leaf(const std::vector<std::string>& path) {
  return std::find(path.begin() + 1, path.end(), "image") != path.end();
}

// Two views of one file: the prompts (and, of lists, one small leaf that shows their lengths), and the pictures. Rows
// whose pictures cannot be decoded still have their prompts and references.
class ParquetScoreSource : public ScoreSource {
 public:
  explicit ParquetScoreSource(const std::filesystem::path& path)
      : cache_(std::make_shared<SegmentCache>(2 * kSegmentBytes)),
        prompts_(path, cache_, kSegmentBytes),
        pictures_(path, cache_, kSegmentBytes),
        prompt_column_(first_column(prompts_, kPromptNames)) {
    choose_layout();
    pictures_.select([this](const std::vector<std::string>& leaf) {
      switch (layout_) {
        case Layout::kPair: return leaf.front() == "jpg_0" || leaf.front() == "jpg_1";
        case Layout::kList: return leaf.front() == "images" && is_picture_leaf(leaf);
        default: return leaf.front() == picture_column_ && leaf.back() != "path";
      }
    });
    prompts_.select([this](const std::vector<std::string>& leaf) {
      const bool is_list_note = layout_ == Layout::kList && leaf.front() == "images" && !is_picture_leaf(leaf) &&
                                leaf.size() <= 4;  // scores are maps, which are deeper
      const bool is_item_prompt =
          layout_ == Layout::kPair && (leaf.front() == "caption_0" || leaf.front() == "caption_1");
      return leaf.front() == prompt_column_ || is_list_note || is_item_prompt;
    });
  }

  bool next(ScoreItem& item, bool wants_picture) override {
    if (row_ >= prompts_.num_rows()) return false;
    if (item_ == 0) open_row();
    item = ScoreItem{.prompt = prompt_, .row = row_, .item = item_, .problem = problem_};
    item.image = concat(prompts_.path().string(), '#', row_);
    if (layout_ == Layout::kPair) {
      item.image += item_ == 0 ? ":jpg_0" : ":jpg_1";
      if (item_prompts_[item_]) item.prompt = item_prompts_[item_];
    }
    if (layout_ == Layout::kList) item.image += concat(':', item_);
    if (wants_picture && problem_.empty()) read_item(item);
    if (++item_ >= num_items_) {
      item_ = 0;
      ++row_;
    }
    return true;
  }

 private:
  void choose_layout() {
    if (prompts_.has_column("jpg_0") && prompts_.has_column("jpg_1")) {
      layout_ = Layout::kPair;
    } else if (prompts_.has_column("images")) {
      layout_ = Layout::kList;
    } else {
      layout_ = Layout::kSingle;
      picture_column_ = first_column(prompts_, kPictureColumns);
      check_input(!picture_column_.empty(), prompts_.path().string(),
                  ": no pictures; expected the columns jpg_0 and jpg_1 (Pick-a-Pic), images (ranked lists) or image "
                  "(bytes of picture files), found: ",
                  prompts_.column_names());
    }
  }

  // Prompt and number of items of the row.
  void open_row() {
    prompt_.reset();
    item_prompts_[0].reset();
    item_prompts_[1].reset();
    problem_.clear();
    num_items_ = layout_ == Layout::kPair ? 2 : 1;
    try {
      if (!prompt_column_.empty() || layout_ != Layout::kSingle) take_row(prompts_.row(row_));
    } catch (const Error& error) {
      problem_ = error.what();
    }
  }

  void take_row(const ParquetTable::Row& row) {
    const auto text = [&](const char* name) -> std::optional<std::string> {
      const auto value = text_at(find_column(*row.batch, name), row.row_in_batch);
      return value ? std::optional<std::string>(*value) : std::nullopt;
    };
    if (!prompt_column_.empty()) prompt_ = text(prompt_column_.c_str());
    if (layout_ == Layout::kPair) {
      item_prompts_[0] = text("caption_0");
      item_prompts_[1] = text("caption_1");
    }
    if (layout_ != Layout::kList) return;
    const arrow::Array* images = find_column(*row.batch, "images");
    const auto cell = images ? list_at(images, row.row_in_batch) : picture_list(row_);
    const int64_t count = cell ? cell->end - cell->begin : 0;
    check_input(count > 0 && count <= kMaxItems, prompts_.path().string(), " row ", row_, ": the list has ", count,
                " images, expected 1 to ", kMaxItems);
    num_items_ = count;
  }

  // Lists of pictures alone: their length is only seen with them.
  std::optional<ListCell> picture_list(int64_t row) {
    picture_row_ = pictures_.row(row);
    return list_at(find_column(*picture_row_.batch, "images"), picture_row_.row_in_batch);
  }

  void read_item(ScoreItem& item) {
    try {
      const ParquetTable::Row row = pictures_.row(row_);
      const auto bytes = picture_bytes(row);
      if (bytes && !bytes->empty()) {
        item.encoded = std::string(*bytes);
      } else {
        item.problem = "the cell holds no picture";
      }
    } catch (const Error& error) {
      item.problem = error.what();
    }
  }

  std::optional<std::string_view> picture_bytes(const ParquetTable::Row& row) const {
    const int64_t at = row.row_in_batch;
    if (layout_ == Layout::kPair) return image_at(find_column(*row.batch, item_ == 0 ? "jpg_0" : "jpg_1"), at);
    if (layout_ == Layout::kSingle) return image_at(find_column(*row.batch, picture_column_), at);
    const auto cell = list_at(find_column(*row.batch, "images"), at);
    if (!cell || cell->begin + item_ >= cell->end) return std::nullopt;
    return image_at(struct_field(cell->values, "image"), cell->begin + item_);
  }

  std::shared_ptr<SegmentCache> cache_;
  ParquetTable prompts_;
  ParquetTable pictures_;
  std::string prompt_column_;
  std::string picture_column_;
  Layout layout_ = Layout::kSingle;
  int64_t row_ = 0;
  int64_t item_ = 0;
  int64_t num_items_ = 1;
  std::optional<std::string> prompt_;
  std::optional<std::string> item_prompts_[2];
  std::string problem_;
  ParquetTable::Row picture_row_;
};

}  // namespace

std::unique_ptr<ScoreSource> open_parquet_pictures(const std::filesystem::path& file) {
  return std::make_unique<ParquetScoreSource>(file);
}

}  // namespace prefusion::data
