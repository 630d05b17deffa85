#include "training/html.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "core/atomic_file.h"
#include "core/error.h"

namespace prefusion::training {
namespace {

constexpr double kWidth = 460, kHeight = 260;
constexpr double kLeft = 62, kRight = 12, kTop = 12, kBottom = 30;
constexpr std::array kColours = {"#1f6feb", "#d1242f", "#2da44e", "#9a6700", "#8250df", "#57606a"};

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string base64(const std::string& bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = static_cast<uint8_t>(bytes[i]) << 16;
    if (i + 1 < bytes.size()) group |= static_cast<uint8_t>(bytes[i + 1]) << 8;
    if (i + 2 < bytes.size()) group |= static_cast<uint8_t>(bytes[i + 2]);
    out += kDigits[group >> 18];
    out += kDigits[(group >> 12) & 63];
    out += i + 1 < bytes.size() ? kDigits[(group >> 6) & 63] : '=';
    out += i + 2 < bytes.size() ? kDigits[group & 63] : '=';
  }
  return out;
}

struct Range {
  double low = INFINITY, high = -INFINITY;
  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  void widen_if_flat() {
    if (high > low) return;
    const double margin = low != 0 ? std::abs(low) * 0.05 : 1.0;
    low -= margin;
    high += margin;
  }
};

}  // namespace

std::string html_escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string svg_chart(const std::string& title, const std::vector<Series>& given) {
  std::vector<Series> series = given;
  for (auto& line : series) {
    std::erase_if(line.points, [](const auto& p) { return !std::isfinite(p.first) || !std::isfinite(p.second); });
  }
  Range x, y;
  for (const auto& line : series) {
    for (const auto& [px, py] : line.points) {
      x.include(px);
      y.include(py);
    }
  }
  if (!(x.low <= x.high)) return "";
  x.widen_if_flat();
  y.widen_if_flat();
  const auto to_x = [&](double v) { return kLeft + (v - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight); };
  const auto to_y = [&](double v) {
    return kHeight - kBottom - (v - y.low) / (y.high - y.low) * (kHeight - kTop - kBottom);
  };
  std::string svg =
      concat("<figure><figcaption>", html_escape(title), "</figcaption><svg viewBox='0 0 ", kWidth, " ", kHeight, "'>");
  for (int tick = 0; tick <= 4; ++tick) {
    const double vx = x.low + (x.high - x.low) * tick / 4, vy = y.low + (y.high - y.low) * tick / 4;
    svg += concat("<line x1='", kLeft, "' x2='", kWidth - kRight, "' y1='", to_y(vy), "' y2='", to_y(vy),
                  "' class='grid'/>");
    svg += concat("<text x='", kLeft - 6, "' y='", to_y(vy) + 4, "' text-anchor='end'>", number_text(vy), "</text>");
    svg += concat("<text x='", to_x(vx), "' y='", kHeight - 10, "' text-anchor='middle'>", number_text(vx), "</text>");
  }
  std::string legend;
  size_t colour = 0;
  for (const auto& line : series) {
    if (line.points.empty()) continue;
    const char* stroke = kColours[colour++ % kColours.size()];
    std::string points;
    for (const auto& [px, py] : line.points) points += concat(to_x(px), ",", to_y(py), " ");
    svg += concat("<polyline fill='none' stroke='", stroke, "' stroke-width='1.6' points='", points, "'/>");
    legend += concat("<span style='color:", stroke, "'>&#9632; ", html_escape(line.name), "</span> ");
  }
  return svg + "</svg><div class='legend'>" + legend + "</div></figure>\n";
}

std::string inline_image(const std::filesystem::path& path, const std::string& caption) {
  return concat("<figure class='picture'><img src='data:image/png;base64,", base64(read_file(path)), "' alt='",
                html_escape(caption), "'><figcaption>", html_escape(caption), "</figcaption></figure>\n");
}

std::string html_page(const std::string& title, const std::string& body) {
  return concat("<!doctype html><html lang='en'><meta charset='utf-8'><title>", html_escape(title),
                "</title><style>body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 "
                "1em;color:#1f2328}"
                "figure{display:inline-block;margin:6px;vertical-align:top}svg{width:460px;font:11px "
                "system-ui}.grid{stroke:#d0d7de}"
                "figcaption{font-weight:600}.picture figcaption{font-weight:400;font-size:12px;max-width:420px}"
                "img{image-rendering:pixelated;max-width:100%}table{border-collapse:collapse}td,th{border:1px solid "
                "#d0d7de;padding:4px 10px;text-align:left}"
                ".legend{font-size:12px}pre{background:#f6f8fa;padding:10px;overflow:auto}.alarm{color:#d1242f;font-"
                "weight:600}</style><h1>",
                html_escape(title), "</h1>\n", body, "</html>\n");
}

}  // namespace prefusion::training
