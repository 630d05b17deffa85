#include "tests/text/text_reference.h"

#include "tests/support/python_reference.h"
#include "tests/text/t5_reference.h"

namespace prefusion::text {

const std::filesystem::path& text_reference() {
  static const std::filesystem::path kFolder = tests::run_reference_script("make_text.py");
  return kFolder;
}

const std::filesystem::path& t5_reference() {
  static const std::filesystem::path kFolder = tests::run_reference_script("make_t5.py");
  return kFolder;
}

}  // namespace prefusion::text
