#pragma once

namespace prefusion {

constexpr double kZ95 = 1.959963984540054;  // two-sided 95 % quantile of the standard normal

// A measured share and the interval that holds the true one.
struct Proportion {
  double rate = 0.5;
  double low = 0;
  double high = 1;
};

// The share successes / count with its score interval (Wilson 1927), which stays inside [0, 1] and is right for small
// counts and for shares near 0 and 1. Successes may be fractional (ties count half). A count of 0 gives 0.5 with [0,
// 1]. Throws a usage error unless 0 <= successes <= count.
Proportion wilson_proportion(double successes, double count, double z = kZ95);

}  // namespace prefusion
