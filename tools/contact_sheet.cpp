#include "tools/contact_sheet.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <sstream>

#include "core/error.h"

namespace prefusion::tools {
namespace {

constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX;
constexpr double kFontScale = 0.38;
constexpr int kLineHeight_px = 15;
constexpr int kMargin_px = 6;
constexpr size_t kMaxLines = 3;

// The font draws ASCII only; one '?' for each other character.
std::string drawable(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xC0) == 0x80) continue;
    out += byte < 0x80 ? (byte < 0x20 ? ' ' : c) : '?';
  }
  return out;
}

int width_px(const std::string& text) {
  return cv::getTextSize(text, kFont, kFontScale, 1, nullptr).width;
}

std::string shortened(std::string line, int limit_px) {
  if (width_px(line) <= limit_px) return line;
  while (!line.empty() && width_px(line + "...") > limit_px) line.pop_back();
  return line + "...";
}

// Words put on lines of at most `limit_px`; what does not fit into the last is cut off.
std::vector<std::string> wrap(const std::string& text, int limit_px) {
  std::vector<std::string> lines(1);
  std::istringstream words(drawable(text));
  for (std::string word; words >> word;) {
    std::string& line = lines.back();
    const std::string longer = line.empty() ? word : line + " " + word;
    if (line.empty() || lines.size() == kMaxLines || width_px(longer) <= limit_px) {
      line = longer;
    } else {
      lines.push_back(word);
    }
  }
  for (std::string& line : lines) line = shortened(line, limit_px);
  return lines;
}

cv::Mat to_bgr(const at::Tensor& image) {
  const at::Tensor packed = image.contiguous();
  const cv::Mat rgb(static_cast<int>(packed.size(0)), static_cast<int>(packed.size(1)), CV_8UC3, packed.data_ptr());
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  return bgr;
}

cv::Mat shrunk(const cv::Mat& image, int64_t max_px) {
  const double scale = static_cast<double>(max_px) / std::max(image.rows, image.cols);
  if (scale >= 1) return image;
  cv::Mat out;
  cv::resize(image, out, {}, scale, scale, cv::INTER_AREA);
  return out;
}

std::string encode(const cv::Mat& bgr) {
  std::vector<unsigned char> bytes;
  check_run(cv::imencode(".png", bgr, bytes), "a picture of ", bgr.cols, " by ", bgr.rows, " could not be encoded");
  return {bytes.begin(), bytes.end()};
}

}  // namespace

std::string render_contact_sheet(const std::vector<SheetCell>& cells, int64_t num_columns, int64_t max_cell_px) {
  check_run(!cells.empty() && num_columns > 0, "a contact sheet needs pictures");
  std::vector<cv::Mat> images;
  cv::Size cell(64, 0);
  for (const SheetCell& item : cells) {
    images.push_back(shrunk(to_bgr(item.image), max_cell_px));
    cell.width = std::max(cell.width, images.back().cols);
    cell.height = std::max(cell.height, images.back().rows);
  }
  const int pitch_x = cell.width + kMargin_px;
  const int pitch_y = cell.height + kMargin_px + kLineHeight_px * static_cast<int>(kMaxLines);
  const int columns = static_cast<int>(std::min<int64_t>(num_columns, static_cast<int64_t>(cells.size())));
  const int rows = (static_cast<int>(cells.size()) + columns - 1) / columns;
  cv::Mat sheet(rows * pitch_y + kMargin_px, columns * pitch_x + kMargin_px, CV_8UC3, cv::Scalar::all(255));
  for (size_t i = 0; i < cells.size(); ++i) {
    const int x = kMargin_px + static_cast<int>(i) % columns * pitch_x;
    const int y = kMargin_px + static_cast<int>(i) / columns * pitch_y;
    images[i].copyTo(sheet(cv::Rect(x, y, images[i].cols, images[i].rows)));
    const std::vector<std::string> lines = wrap(cells[i].caption, cell.width);
    for (size_t line = 0; line < lines.size(); ++line) {
      const cv::Point origin(x, y + cell.height + static_cast<int>(line + 1) * kLineHeight_px - 4);
      cv::putText(sheet, lines[line], origin, kFont, kFontScale, cv::Scalar::all(30), 1, cv::LINE_AA);
    }
  }
  return encode(sheet);
}

}  // namespace prefusion::tools
