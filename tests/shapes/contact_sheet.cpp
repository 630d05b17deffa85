// Writes 48 random training scenes, with captions and taste scores on standard output in the order of the sheet's rows:
//   build/tests/shapes_contact_sheet SHEET.png
#include <ATen/ATen.h>

#include <iostream>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "shapes/checker.h"
#include "shapes/scene.h"
#include "shapes/taste.h"

int main(int argc, char** argv) {
  namespace shapes = prefusion::shapes;
  if (argc != 2) {
    std::cerr << "usage: shapes_contact_sheet SHEET.png\n";
    return 2;
  }
  constexpr int kColumns = 8, kRows = 6, kScale = 3, kCell = shapes::kPictureSize * kScale + 4;
  cv::Mat sheet(kRows * kCell, kColumns * kCell, CV_8UC3, cv::Scalar(0, 0, 0));
  for (int i = 0; i < kColumns * kRows; ++i) {
    prefusion::CounterRng rng({1, static_cast<uint64_t>(i), 0}, prefusion::RandomPurpose::kScene);
    const shapes::Scene scene = shapes::sample_scene(rng);
    const at::Tensor picture = shapes::render(scene);
    const shapes::Taste taste = shapes::taste(picture);
    const shapes::CheckResult result = shapes::check(picture, shapes::caption(scene));
    std::cout << i / kColumns << ',' << i % kColumns << "  " << shapes::caption(scene) << "  correct " << result.correct
              << "  background " << taste.background << "  edges " << taste.edge_cleanliness << "  blobs "
              << taste.stray_blobs << "  score " << taste.score << "  (drawn: background " << scene.background
              << ", blobs " << scene.blobs.size() << ", blur " << scene.blur_passes << ")\n";
    const cv::Mat rgb(shapes::kPictureSize, shapes::kPictureSize, CV_8UC3, picture.data_ptr());
    cv::Mat bgr;
    cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
    cv::Mat cell = sheet(cv::Rect(i % kColumns * kCell + 2, i / kColumns * kCell + 2, kCell - 4, kCell - 4));
    cv::resize(bgr, cell, cell.size(), 0, 0, cv::INTER_NEAREST);
  }
  return cv::imwrite(argv[1], sheet) ? 0 : 1;
}
