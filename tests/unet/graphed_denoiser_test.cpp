#include "unet/graphed_denoiser.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/rng.h"
#include "nn/channels_last.h"
#include "nn/layers.h"
#include "tests/core/expect_error.h"
#include "tests/kernels/device_test.h"

namespace prefusion::unet {
namespace {

// Depends on everything it is given, and counts its passes.
class CountingDenoiser : public Denoiser {
 public:
  at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const Conditioning& conditioning) override {
    ++count;
    at::Tensor scale = timesteps.to(at::kFloat) + conditioning.encoder_hidden_states.sum({1, 2});
    for (const at::Tensor& part : {conditioning.encoder_mask, conditioning.pooled, conditioning.time_ids}) {
      if (part.defined()) scale = scale * 3 + part.to(at::kFloat).sum(1);
    }
    if (conditioning.guidance.defined()) scale = scale * 3 + conditioning.guidance;
    if (conditioning.user_states.defined()) scale = scale * 3 + conditioning.user_states.sum({1, 2});
    return noisy_latents * scale.view({-1, 1, 1, 1});
  }
  const DenoiserInfo& info() const override { return info_; }
  int64_t num_time_ids(int64_t pooled_width) const override { return pooled_width + 1; }

  int count = 0;

 private:
  DenoiserInfo info_{.class_name = "CountingDenoiser"};
};

struct Question {
  at::Tensor noisy_latents, timesteps;
  Conditioning conditioning;
};

Question ask(int64_t batch, int64_t height = 4, int64_t tokens = 3) {
  return {.noisy_latents = at::randn({batch, 4, height, 6}),
          .timesteps = at::randint(1000, {batch}, at::kLong),
          .conditioning = {.encoder_hidden_states = at::randn({batch, tokens, 5})}};
}

Question ask_everything(int64_t batch) {
  Question question = ask(batch);
  Conditioning& c = question.conditioning;
  c.encoder_mask = at::rand({batch, 3}) > 0.5;
  c.pooled = at::randn({batch, 7});
  c.time_ids = at::randn({batch, 6});
  c.guidance = at::randn({batch});
  c.user_states = at::randn({batch, 2, 5});
  return question;
}

class GraphedDenoiserTest : public testing::Test {
 protected:
  at::Tensor answer(const Question& q) { return graphed.forward(q.noisy_latents, q.timesteps, q.conditioning); }
  at::Tensor expected(const Question& q) { return plain.forward(q.noisy_latents, q.timesteps, q.conditioning); }

  const at::NoGradGuard no_grad;
  std::shared_ptr<CountingDenoiser> recorded = std::make_shared<CountingDenoiser>();
  GraphedDenoiser graphed{recorded};
  CountingDenoiser plain;
};

TEST_F(GraphedDenoiserTest, AnswersAsTheDenoiserDoesWhateverItIsGiven) {
  at::manual_seed(0);
  for (int i = 0; i < 3; ++i) {
    const Question question = ask_everything(2);
    EXPECT_TRUE(at::equal(answer(question), expected(question))) << i;
  }
  EXPECT_EQ(graphed.num_graphs(), 1);
}

TEST_F(GraphedDenoiserTest, LaterPassesLeaveEarlierAnswersAlone) {
  // A graph writes its answers to one place.
  class OnePlace : public CountingDenoiser {
   public:
    at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                       const Conditioning& conditioning) override {
      const at::Tensor answered = CountingDenoiser::forward(noisy_latents, timesteps, conditioning);
      if (!place_.defined()) place_ = at::empty_like(answered);
      return place_.copy_(answered);
    }

   private:
    at::Tensor place_;
  };
  GraphedDenoiser one_place(std::make_shared<OnePlace>());
  const Question first = ask(2), second = ask(2);
  const at::Tensor answered = one_place.forward(first.noisy_latents, first.timesteps, first.conditioning);
  one_place.forward(second.noisy_latents, second.timesteps, second.conditioning);
  EXPECT_TRUE(at::equal(answered, expected(first)));
}

TEST_F(GraphedDenoiserTest, TheQuestionIsLeftAlone) {
  const Question first = ask(1), second = ask(1);
  const at::Tensor before = first.noisy_latents.clone();
  answer(first);
  answer(second);
  EXPECT_TRUE(at::equal(first.noisy_latents, before));
}

TEST_F(GraphedDenoiserTest, EveryShapeAndDtypeHasAGraphOfItsOwn) {
  for (const int64_t batch : {4, 2, 4, 2}) {
    const Question question = ask(batch);
    EXPECT_TRUE(at::equal(answer(question), expected(question)));
  }
  EXPECT_EQ(graphed.num_graphs(), 2);
  const Question longer = ask(4, 4, /*tokens=*/8);
  EXPECT_TRUE(at::equal(answer(longer), expected(longer)));
  EXPECT_EQ(graphed.num_graphs(), 3);
  Question continuous = ask(4);
  continuous.timesteps = continuous.timesteps.to(at::kFloat) + 0.5;
  EXPECT_TRUE(at::equal(answer(continuous), expected(continuous)));
  EXPECT_EQ(graphed.num_graphs(), 4);
  const Question everything = ask_everything(4);
  EXPECT_TRUE(at::equal(answer(everything), expected(everything)));
  EXPECT_EQ(graphed.num_graphs(), 5);
}

TEST_F(GraphedDenoiserTest, GraphsOfAnotherPictureSizeAreDropped) {
  answer(ask(1));
  answer(ask(2));
  EXPECT_EQ(graphed.num_graphs(), 2);
  const Question taller = ask(1, /*height=*/8);
  EXPECT_TRUE(at::equal(answer(taller), expected(taller)));
  EXPECT_EQ(graphed.num_graphs(), 1);
}

TEST_F(GraphedDenoiserTest, GradientsAreRefused) {
  const at::AutoGradMode with_gradients(true);
  const std::string message = tests::error_message(ErrorClass::kRun, [&] { answer(ask(1)); });
  EXPECT_TRUE(tests::mentions(message, "no gradients"));
}

TEST_F(GraphedDenoiserTest, SaysOfItselfWhatTheDenoiserSays) {
  EXPECT_EQ(graphed.info().class_name, "CountingDenoiser");
  EXPECT_EQ(graphed.num_time_ids(7), 8);
}

class CudaGraphedDenoiserTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = tests::skip_reason("cuda");
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
  static Question on_gpu(Question question) {
    const auto move = [](at::Tensor& tensor) {
      if (tensor.defined()) tensor = tensor.cuda();
    };
    Conditioning& c = question.conditioning;
    for (at::Tensor* tensor : {&question.noisy_latents, &question.timesteps, &c.encoder_hidden_states, &c.encoder_mask,
                               &c.pooled, &c.time_ids, &c.guidance, &c.user_states}) {
      move(*tensor);
    }
    return question;
  }
  const at::NoGradGuard no_grad;
};

TEST_F(CudaGraphedDenoiserTest, ReplaysAnswerAsTheDenoiserDoesAndDoNotAskIt) {
  const auto denoiser = std::make_shared<CountingDenoiser>();
  GraphedDenoiser graphed(denoiser);
  CountingDenoiser plain;
  for (int i = 0; i < 3; ++i) {
    const Question q = on_gpu(ask_everything(2));
    const at::Tensor answered = graphed.forward(q.noisy_latents, q.timesteps, q.conditioning);
    EXPECT_TRUE(at::allclose(answered, plain.forward(q.noisy_latents, q.timesteps, q.conditioning)));
  }
  EXPECT_EQ(denoiser->count, 2);  // the first run, and the recorded one
}

TEST_F(CudaGraphedDenoiserTest, AUNetInHalfPrecisionAnswersAsWithoutAGraph) {
  const auto unet = make_denoiser(R"({"_class_name": "UNet2DConditionModel", "down_block_types":
    ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 5,
    "attention_head_dim": 2})",
                                  "test");
  nn::init_weights(*unet, make_torch_generator(1));
  unet->to(at::kCUDA, at::kBFloat16);
  nn::to_fastest_layout(*unet);
  GraphedDenoiser graphed(unet);
  for (int i = 0; i < 3; ++i) {
    Question q = on_gpu(ask(2));
    q.noisy_latents = q.noisy_latents.to(at::kBFloat16);
    const at::Tensor answered = graphed.forward(q.noisy_latents, q.timesteps, q.conditioning);
    const at::Tensor plain = unet->forward(q.noisy_latents, q.timesteps, q.conditioning);
    EXPECT_TRUE(at::allclose(answered.to(at::kFloat), plain.to(at::kFloat), 1e-2, 1e-2)) << i;
  }
  EXPECT_EQ(graphed.num_graphs(), 1);
}

TEST_F(CudaGraphedDenoiserTest, WhatWaitsForTheDeviceRunsWithoutAGraph) {
  class Waiting : public CountingDenoiser {
   public:
    at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                       const Conditioning& conditioning) override {
      return CountingDenoiser::forward(noisy_latents, timesteps, conditioning) * timesteps.max().item<double>();
    }
  };
  GraphedDenoiser graphed(std::make_shared<Waiting>());
  Waiting plain;
  for (int i = 0; i < 2; ++i) {
    const Question q = on_gpu(ask(2));
    const at::Tensor answered = graphed.forward(q.noisy_latents, q.timesteps, q.conditioning);
    EXPECT_TRUE(at::allclose(answered, plain.forward(q.noisy_latents, q.timesteps, q.conditioning)));
  }
  EXPECT_EQ(graphed.num_graphs(), 0);
}

}  // namespace
}  // namespace prefusion::unet
