#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace prefusion::training {

std::string html_escape(const std::string& text);

// One line of a chart.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // (x, y)
};

// A line chart as inline SVG with axes, ticks and a legend. Points that are not finite and empty series are left
// out.
std::string svg_chart(const std::string& title, const std::vector<Series>& series);

// A picture file as an <img> with its bytes inline, so that the page stands alone.
std::string inline_image(const std::filesystem::path& path, const std::string& caption);

// A whole page with the project's style sheet.
std::string html_page(const std::string& title, const std::string& body);

}  // namespace prefusion::training
