// RMSNorm: out = x / sqrt(mean(x^2) + eps) * weight, row by row (Zhang and Sennrich 2019, arXiv:1910.07467).
//
// x and out are [rows, n] floats, row after row without gaps; weight is [n]. No alignment is asked for.
// Four sums run side by side, so that additions need not wait for one another; the order of additions
// depends on n alone.

#include "kernels.h"
#include "simd.h"

namespace trackbed::TRACKBED_ISA {

static float mean_square(const float* x, std::size_t n) {
    constexpr std::size_t w = vec::width;
    vec s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    std::size_t i = 0;
    for (; i + 4 * w <= n; i += 4 * w) {
        const vec a = load(x + i), b = load(x + i + w), c = load(x + i + 2 * w), d = load(x + i + 3 * w);
        s0 = mul_add(a, a, s0);
        s1 = mul_add(b, b, s1);
        s2 = mul_add(c, c, s2);
        s3 = mul_add(d, d, s3);
    }
    for (; i + w <= n; i += w) s0 = mul_add(load(x + i), load(x + i), s0);
    float total = sum(add(add(s0, s1), add(s2, s3)));
    for (; i < n; ++i) total += x[i] * x[i];
    return total / static_cast<float>(n);
}

void rms_norm(const float* x, const float* weight, float eps, float* out, std::size_t rows, std::size_t n) {
    for (std::size_t row = 0; row < rows; ++row, x += n, out += n) {
        const float scale = 1.0f / std::sqrt(mean_square(x, n) + eps);
        std::size_t i = 0;
        for (; i + vec::width <= n; i += vec::width)
            store(out + i, mul(mul(load(x + i), broadcast(scale)), load(weight + i)));
        for (; i < n; ++i) out[i] = x[i] * scale * weight[i];
    }
}

}  // namespace trackbed::TRACKBED_ISA
