#include "tests/text/text_reference.h"

#include "tests/support/python_reference.h"

namespace prefusion::text {

const std::filesystem::path& text_reference() {
  static const std::filesystem::path kFolder = tests::run_reference_script("make_text.py");
  return kFolder;
}

}  // namespace prefusion::text
