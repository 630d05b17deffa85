#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace prefusion::tools {

// A cell of a contact sheet.
struct SheetCell {
  at::Tensor image;     // uint8 [H, W, 3] RGB on the CPU
  std::string caption;  // UTF-8; characters the built-in font lacks become '?'
};

// All pictures on one PNG, row by row, each with its caption below in at most three lines; pictures are shrunk to at
// most `max_cell_px` on their longer side. Returns the bytes of the file.
std::string render_contact_sheet(const std::vector<SheetCell>& cells, int64_t num_columns, int64_t max_cell_px = 256);

}  // namespace prefusion::tools
