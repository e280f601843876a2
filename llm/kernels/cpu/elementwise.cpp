// What happens to activations between two products, row by row.

#include "kernels.h"
#include "simd.h"

namespace trackbed::TRACKBED_ISA {

// Groups of 32 as whole numbers from -127 to 127 times a scale, the largest of the group over 127 (Dettmers et al. 2022,
// arXiv:2208.07339, in groups). x is [n]; codes [width], scales [width / 32] and sums [width / 16] are of the padded row.
void quantise(const float* x, std::size_t n, std::size_t width, std::int8_t* codes, float* scales,
              std::int32_t* sums) {
    float padded[GROUP];
    for (std::size_t g = 0; g < width / GROUP; ++g, codes += GROUP) {
        const std::size_t start = g * GROUP;
        const float* group = x + start;
        if (start + GROUP > n) {
            std::fill(std::copy(x + std::min(start, n), x + n, padded), padded + GROUP, 0.0f);
            group = padded;
        }
        vec most = zero();
        for (std::size_t i = 0; i < GROUP; i += vec::width) most = greatest(most, absolute(load(group + i)));
        const float largest = highest(most);
        scales[g] = largest / 127.0f;
        const vec inverse = broadcast(largest > 0.0f ? 127.0f / largest : 0.0f);
        for (std::size_t i = 0; i < GROUP; i += vec::width) {
            const vec whole = round(mul(load(group + i), inverse));
            store_int8(codes + i, least(greatest(whole, broadcast(-127.0f)), broadcast(127.0f)));
        }
        for (std::size_t half = 0; half < 2; ++half) {
            std::int32_t sum = 0;
            for (std::size_t i = 0; i < GROUP / 2; ++i) sum += codes[half * GROUP / 2 + i];
            sums[2 * g + half] = sum;
        }
    }
}

// silu(gate) * up (Shazeer 2020, arXiv:2002.05202), for n a multiple of 32.
void swiglu(const float* gate, const float* up, float* out, std::size_t n) {
    const vec one = broadcast(1.0f);
    for (std::size_t i = 0; i < n; i += vec::width) {
        const vec g = load(gate + i);
        const vec silu = div(g, add(one, exponential(sub(zero(), g))));
        store(out + i, mul(silu, load(up + i)));
    }
}

// x Phi(x) in place, Phi the normal distribution's (Hendrycks and Gimpel 2016, arXiv:1606.08415), for n a multiple of
// 32. Its error function is 7.1.26 of Abramowitz and Stegun, which is off by 1.5e-7 at most.
void gelu(float* x, std::size_t n) {
    const vec one = broadcast(1.0f), half = broadcast(0.5f);
    for (std::size_t i = 0; i < n; i += vec::width) {
        const vec value = load(x + i), scaled = mul(value, broadcast(0.70710678f)), size = absolute(scaled);
        const vec t = div(one, mul_add(size, broadcast(0.3275911f), one));
        vec sum = broadcast(1.061405429f);
        for (const float factor : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f})
            sum = mul_add(sum, t, broadcast(factor));
        const vec rest = mul(mul(sum, t), exponential(sub(zero(), mul(size, size))));  // 1 - erf(|x| / sqrt(2))
        const vec tail = mul(half, rest);                                              // Phi(-|x|)
        // x Phi(x) is max(x, 0) less |x| Phi(-|x|), on both sides of nought.
        store(x + i, sub(greatest(value, zero()), mul(absolute(value), tail)));
    }
}

// Turns the pairs (i, i + head_dim / 2) of a head by their angles (Su et al. 2021, arXiv:2104.09864), and scales it.
void rope(float* head, const float* cosines, const float* sines, float scale, std::size_t head_dim) {
    const std::size_t half = head_dim / 2;
    for (std::size_t i = 0; i < half; ++i) {
        const float first = head[i], second = head[i + half];
        head[i] = (first * cosines[i] - second * sines[i]) * scale;
        head[i + half] = (second * cosines[i] + first * sines[i]) * scale;
    }
}

}  // namespace trackbed::TRACKBED_ISA
