// One token by its logits, at a temperature and from the nucleus (Holtzman et al. 2019, arXiv:1904.09751).
//
// The nucleus is the fewest tokens that together weigh top_p. To find it nothing is sorted but the tokens about as heavy
// as its lightest: weights are first counted in buckets by their highest bits, which order floats above zero.

#include <vector>

#include "kernels.h"
#include "simd.h"

namespace trackbed::TRACKBED_ISA {

namespace {

constexpr std::size_t BUCKETS = 2048;  // 8 bits of exponent and 3 of fraction

std::size_t bucket_of(float weight) {
    std::uint32_t bits;
    std::memcpy(&bits, &weight, sizeof bits);
    return bits >> 20 & (BUCKETS - 1);
}

// Zeroes what is outside of the nucleus; gives what is left, together.
double keep_nucleus(std::vector<float>& weights, double needed) {
    double sums[BUCKETS] = {};
    for (const float weight : weights) sums[bucket_of(weight)] += weight;
    std::size_t last = BUCKETS;
    double kept = 0.0;
    while (last > 0 && kept + sums[last - 1] < needed) kept += sums[--last];
    if (last == 0) return kept;
    --last;  // the bucket in which the nucleus ends
    std::vector<std::size_t> edge;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const std::size_t bucket = bucket_of(weights[i]);
        if (bucket == last) edge.push_back(i);
        else if (bucket < last) weights[i] = 0.0f;
    }
    std::stable_sort(edge.begin(), edge.end(), [&](std::size_t a, std::size_t b) { return weights[a] > weights[b]; });
    for (const std::size_t i : edge) {
        if (kept < needed) kept += weights[i];
        else weights[i] = 0.0f;
    }
    return kept;
}

}  // namespace

// The token at which the weights, added up in order, first reach `drawn` of their sum; drawn is above 0, up to 1.
std::size_t sample(const float* logits, std::size_t n, float temperature, double top_p, double drawn) {
    const std::size_t best = static_cast<std::size_t>(std::max_element(logits, logits + n) - logits);
    const std::size_t padded = (n + vec::width - 1) / vec::width * vec::width;
    std::vector<float> weights(padded, -INFINITY);
    std::copy(logits, logits + n, weights.begin());
    const vec most = broadcast(logits[best]), heat = broadcast(std::max(temperature, 1e-30f));
    double total = 0.0;
    for (std::size_t i = 0; i < padded; i += vec::width)
        store(&weights[i], exponential(div(sub(load(&weights[i]), most), heat)));
    weights.resize(n);
    for (const float weight : weights) total += weight;
    if (!std::isfinite(total)) return best;  // logits that are no numbers
    if (top_p < 1.0) total = keep_nucleus(weights, top_p * total);
    double sum = 0.0;
    std::size_t found = best;
    for (std::size_t i = 0; i < n && sum < drawn * total; ++i) {
        sum += weights[i];
        if (weights[i] > 0.0f) found = i;
    }
    return found;
}

}  // namespace trackbed::TRACKBED_ISA
