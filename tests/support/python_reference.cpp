#include "tests/support/python_reference.h"

#include <cstdio>
#include <deque>
#include <stdexcept>

#include "tests/support/temp_dir.h"

namespace prefusion::tests {

std::filesystem::path run_reference_script(const std::string& script, const std::vector<std::string>& arguments) {
  static std::deque<TempDir> folders;
  const std::filesystem::path folder = folders.emplace_back().path();
  std::string command = std::string("'") + PREFUSION_PYTHON + "' '" + PREFUSION_REFERENCE_DIR + "/" + script + "' '" +
                        folder.string() + "'";
  for (const auto& argument : arguments) command += " '" + argument + "'";
  command += " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) throw std::runtime_error("cannot run " + command);
  std::string output;
  char buffer[4096];
  while (const size_t bytes = fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, bytes);
  if (pclose(pipe) != 0) throw std::runtime_error(script + " failed:\n" + output);
  return folder;
}

}  // namespace prefusion::tests
