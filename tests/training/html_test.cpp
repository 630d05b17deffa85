#include "training/html.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tests/support/temp_dir.h"

namespace prefusion::training {
namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Html, EscapesWhatHasAMeaning) {
  EXPECT_EQ(html_escape("a<b> & \"c\" 'd' \xC3\xA9"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39; \xC3\xA9");
}

TEST(Html, ForeignTextCannotLeaveItsPlace) {
  const tests::TempDir folder;
  const std::string attack = "'\"><script>alert(1)</script>";
  write_file(folder / "x.png", "abc");
  const std::string page =
      html_page(attack, svg_chart(attack, {{attack, {{0, 1}, {1, 2}}}}) + inline_image(folder / "x.png", attack));
  EXPECT_FALSE(contains(page, "<script"));
  EXPECT_FALSE(contains(page, "'\">"));
}

TEST(Html, PicturesAreInline) {
  const tests::TempDir folder;
  for (const auto& [bytes, base64] : {std::pair{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foobar", "Zm9vYmFy"}}) {
    write_file(folder / "x.png", bytes);
    EXPECT_TRUE(contains(inline_image(folder / "x.png", "c"), std::string("base64,") + base64 + "'")) << bytes;
  }
  EXPECT_THROW(inline_image(folder / "absent.png", ""), Error);
}

TEST(Html, ChartHasALineForEverySeriesWithPoints) {
  const std::string svg = svg_chart("Loss", {{"a", {{0, 1}, {10, 0.5}}}, {"empty", {}}, {"b", {{0, 2}}}});
  EXPECT_TRUE(contains(svg, "Loss"));
  EXPECT_FALSE(contains(svg, "empty"));
  size_t lines = 0;
  for (size_t at = svg.find("<polyline"); at != std::string::npos; at = svg.find("<polyline", at + 1)) ++lines;
  EXPECT_EQ(lines, 2u);
}

TEST(Html, ChartWithoutPointsIsNothing) {
  EXPECT_EQ(svg_chart("Loss", {}), "");
  EXPECT_EQ(svg_chart("Loss", {{"a", {}}}), "");
}

TEST(Html, FlatLinesAndNonFinitePointsDrawFiniteNumbers) {
  for (const std::string& svg : {svg_chart("x", {{"a", {{0, 0}, {1, 0}}}}), svg_chart("x", {{"a", {{5, 3}}}}),
                                 svg_chart("x", {{"a", {{0, 1}, {1, INFINITY}, {2, std::nan("")}, {3, 2}}}})}) {
    EXPECT_FALSE(contains(svg, "nan"));
    EXPECT_FALSE(contains(svg, "inf"));
  }
}

}  // namespace
}  // namespace prefusion::training
