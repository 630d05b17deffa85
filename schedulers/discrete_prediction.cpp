#include "schedulers/discrete_prediction.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::schedulers {

CleanAndNoise split_prediction(PredictionType type, const at::Tensor& prediction, const at::Tensor& sample,
                               const at::Tensor& signal, const at::Tensor& deviation) {
  switch (type) {
    case PredictionType::kEpsilon: return {(sample - deviation * prediction) / signal, prediction};
    case PredictionType::kSample: return {prediction, (sample - signal * prediction) / deviation};
    case PredictionType::kVPrediction:
      return {signal * sample - deviation * prediction, signal * prediction + deviation * sample};
    case PredictionType::kFlow: return {sample - deviation * prediction, sample + signal * prediction};
  }
  fail_run("no such prediction type");
}

at::Tensor prediction_of(PredictionType type, const at::Tensor& clean, const at::Tensor& sample,
                         const at::Tensor& signal, const at::Tensor& deviation) {
  switch (type) {
    case PredictionType::kEpsilon: return (sample - signal * clean) / deviation;
    case PredictionType::kSample: return clean;
    case PredictionType::kVPrediction: return (signal * sample - clean) / deviation;
    case PredictionType::kFlow: return (sample - clean) / deviation;
  }
  fail_run("no such prediction type");
}

}  // namespace prefusion::schedulers
