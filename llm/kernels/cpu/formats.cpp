#include "formats.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace trackbed {

namespace {

std::uint16_t load16(const std::uint8_t* p) {
    std::uint16_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

std::uint32_t load32(const std::uint8_t* p) {
    std::uint32_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

float half_at(const std::uint8_t* p) { return half_to_float(load16(p)); }

// The low halves of 16 bytes are codes 0 to 15, the high halves 16 to 31.
void split(const std::uint8_t* bytes, std::uint8_t* codes) {
    for (std::size_t i = 0; i < 16; ++i) {
        codes[i] = bytes[i] & 15;
        codes[i + 16] = bytes[i] >> 4;
    }
}

// The same with a fifth bit, bit i of `fifths` for code i.
void split_five(const std::uint8_t* bytes, std::uint32_t fifths, std::uint8_t* codes) {
    split(bytes, codes);
    for (std::size_t i = 0; i < 32; ++i) codes[i] |= static_cast<std::uint8_t>((fifths >> i & 1) << 4);
}

void q4_0(const std::uint8_t* block, std::uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    split(block + 2, codes);
}

void q4_1(const std::uint8_t* block, std::uint8_t* codes, float* scales, float* minimums) {
    scales[0] = half_at(block);
    minimums[0] = half_at(block + 2);
    split(block + 4, codes);
}

void q5_0(const std::uint8_t* block, std::uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    split_five(block + 6, load32(block + 2), codes);
}

void q5_1(const std::uint8_t* block, std::uint8_t* codes, float* scales, float* minimums) {
    scales[0] = half_at(block);
    minimums[0] = half_at(block + 2);
    split_five(block + 8, load32(block + 4), codes);
}

void q8_0(const std::uint8_t* block, std::uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    for (std::size_t i = 0; i < 32; ++i) codes[i] = block[2 + i] ^ 128;
}

// 16 levels that are not evenly spaced.
void iq4_nl(const std::uint8_t* block, std::uint8_t* codes, float* scales, float*) {
    static constexpr std::int8_t levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    scales[0] = half_at(block);
    split(block + 2, codes);
    for (std::size_t i = 0; i < 32; ++i) codes[i] = static_cast<std::uint8_t>(levels[codes[i]] + 128);
}

// 16 groups of 16: scales and minimums of 4 bits, codes of 2 bits; then the two factors of the block.
void q2_k(const std::uint8_t* block, std::uint8_t* codes, float* scales, float* minimums) {
    const std::uint8_t* quarters = block + 16;
    const float scale = half_at(block + 80), minimum = half_at(block + 82);
    for (std::size_t i = 0; i < 16; ++i) {
        scales[i] = scale * static_cast<float>(block[i] & 15);
        minimums[i] = -(minimum * static_cast<float>(block[i] >> 4));
    }
    for (std::size_t i = 0; i < 256; ++i) codes[i] = quarters[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

// 16 groups of 16: a third bit for each code, 2 bits for each, scales of 6 bits about 32, and the block's factor.
void q3_k(const std::uint8_t* block, std::uint8_t* codes, float* scales, float*) {
    const std::uint8_t *thirds = block, *quarters = block + 32, *packed = block + 96;
    const float scale = half_at(block + 108);
    for (std::size_t i = 0; i < 16; ++i) {
        const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
        const int high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
        scales[i] = scale * static_cast<float>((low | high << 4) - 32);
    }
    for (std::size_t i = 0; i < 256; ++i) {
        const int low = quarters[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        codes[i] = static_cast<std::uint8_t>(low | (thirds[i % 32] >> (i / 32) & 1) << 2);
    }
}

// Eight scales and eight minimums of 6 bits in 12 bytes, times the block's two factors.
void six_bits(const std::uint8_t* block, float* scales, float* minimums) {
    const float scale = half_at(block), minimum = half_at(block + 2);
    const std::uint8_t* packed = block + 4;
    for (std::size_t i = 0; i < 8; ++i) {
        const int s = i < 4 ? packed[i] & 63 : (packed[i + 4] & 15) | packed[i - 4] >> 6 << 4;
        const int m = i < 4 ? packed[i + 4] & 63 : packed[i + 4] >> 4 | packed[i] >> 6 << 4;
        scales[i] = scale * static_cast<float>(s);
        minimums[i] = -(minimum * static_cast<float>(m));
    }
}

void q4_k(const std::uint8_t* block, std::uint8_t* codes, float* scales, float* minimums) {
    six_bits(block, scales, minimums);
    for (std::size_t i = 0; i < 256; ++i) codes[i] = block[16 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
}

void q5_k(const std::uint8_t* block, std::uint8_t* codes, float* scales, float* minimums) {
    six_bits(block, scales, minimums);
    for (std::size_t i = 0; i < 256; ++i) {
        const int low = block[48 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
        codes[i] = static_cast<std::uint8_t>(low | (block[16 + i % 32] >> (i / 32) & 1) << 4);
    }
}

// Codes of 6 bits about 32: 4 bits in the first 128 bytes, 2 bits in the next 64; then scales of 8 bits with a sign.
void q6_k(const std::uint8_t* block, std::uint8_t* codes, float* scales, float*) {
    const std::uint8_t *low = block, *high = block + 128, *packed = block + 192;
    const float scale = half_at(block + 208);
    for (std::size_t i = 0; i < 16; ++i) scales[i] = scale * static_cast<float>(static_cast<std::int8_t>(packed[i]));
    for (std::size_t i = 0; i < 256; ++i) {
        const std::size_t half = i / 128, place = i % 128;
        const int four = low[half * 64 + place % 64] >> (place / 64 * 4) & 15;
        const int two = high[half * 32 + place % 32] >> (place / 32 * 2) & 3;
        codes[i] = static_cast<std::uint8_t>(four | two << 4);
    }
}

constexpr Format FORMATS[] = {
    {"F32", 1, 4, Kind::float32, 0, 0, false, nullptr},
    {"F16", 1, 2, Kind::float16, 0, 0, false, nullptr},
    {"BF16", 1, 2, Kind::bfloat16, 0, 0, false, nullptr},
    {"Q4_0", 32, 18, Kind::nibbles, 32, 8, false, q4_0},
    {"Q4_1", 32, 20, Kind::nibbles, 32, 0, true, q4_1},
    {"Q5_0", 32, 22, Kind::bytes, 32, 16, false, q5_0},
    {"Q5_1", 32, 24, Kind::bytes, 32, 0, true, q5_1},
    {"Q8_0", 32, 34, Kind::bytes, 32, 128, false, q8_0},
    {"IQ4_NL", 32, 18, Kind::bytes, 32, 128, false, iq4_nl},
    {"Q2_K", 256, 84, Kind::nibbles, 16, 0, true, q2_k},
    {"Q3_K", 256, 110, Kind::nibbles, 16, 4, false, q3_k},
    {"Q4_K", 256, 144, Kind::nibbles, 32, 0, true, q4_k},
    {"Q5_K", 256, 176, Kind::bytes, 32, 0, true, q5_k},
    {"Q6_K", 256, 210, Kind::bytes, 16, 32, false, q6_k},
};

}  // namespace

namespace {

void store_half(std::uint8_t* p, float value) {
    const std::uint16_t half = float_to_half(value);
    std::memcpy(p, &half, sizeof half);
}

}  // namespace

void encode_q8_0(const float* x, std::size_t n, bool one_scale, std::uint8_t* blocks) {
    const auto largest_of = [&](std::size_t begin, std::size_t end) {
        float largest = 0.0f;
        for (std::size_t i = begin; i < end; ++i) largest = std::fmax(largest, std::fabs(x[i]));
        return largest;
    };
    const float of_row = one_scale ? largest_of(0, n) : 0.0f;
    for (std::size_t begin = 0; begin < n; begin += 32, blocks += 34) {
        const std::size_t end = std::min(n, begin + 32);
        const float scale = (one_scale ? of_row : largest_of(begin, end)) / 127.0f;
        const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
        store_half(blocks, scale);
        std::memset(blocks + 2, 0, 32);
        for (std::size_t i = begin; i < end; ++i)
            blocks[2 + i - begin] = static_cast<std::uint8_t>(static_cast<std::int8_t>(std::round(x[i] * inverse)));
    }
}

void encode_q4_1(const float* x, std::size_t n, bool one_scale, std::uint8_t* blocks) {
    const auto range = [&](std::size_t begin, std::size_t end, float& least, float& most) {
        least = most = x[begin];
        for (std::size_t i = begin; i < end; ++i) {
            least = std::fmin(least, x[i]);
            most = std::fmax(most, x[i]);
        }
    };
    float least = 0.0f, most = 0.0f;
    if (one_scale) range(0, n, least, most);
    for (std::size_t begin = 0; begin < n; begin += 32, blocks += 20) {
        const std::size_t end = std::min(n, begin + 32);
        if (!one_scale) range(begin, end, least, most);
        const float scale = (most - least) / 15.0f, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
        store_half(blocks, scale);
        store_half(blocks + 2, least);
        std::memset(blocks + 4, 0, 16);
        for (std::size_t i = begin; i < end; ++i) {
            const float code = std::fmin((x[i] - least) * inverse + 0.5f, 15.0f);
            blocks[4 + (i - begin) % 16] |= static_cast<std::uint8_t>(static_cast<int>(code) << ((i - begin) / 16 * 4));
        }
    }
}

const Format& find_format(const std::string& name) {
    std::string known;
    for (const Format& format : FORMATS) {
        if (name == format.name) return format;
        known += (known.empty() ? "" : ", ") + std::string(format.name);
    }
    throw std::invalid_argument("no weight format '" + name + "'; there are: " + known);
}

float half_to_float(std::uint16_t half) {
    const std::uint32_t magnitude = half & 0x7fffu;
    std::uint32_t bits;
    float value;
    if (magnitude >= 0x7c00u) {
        bits = 0x7f800000u | (magnitude & 0x3ffu) << 13;
        std::memcpy(&value, &bits, sizeof value);
    } else {
        // Shifted in place it is too small by 2^112, subnormal numbers included.
        bits = magnitude << 13;
        std::memcpy(&value, &bits, sizeof value);
        value *= 0x1p112f;
    }
    return half & 0x8000u ? -value : value;
}

std::uint16_t float_to_half(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits >= 0x47800000u)  // 65536 and above, infinity and NaN
        return static_cast<std::uint16_t>(sign | 0x7c00u | (bits > 0x7f800000u ? 0x200u : 0u));
    if (bits < 0x38800000u) {  // below the least normal half: added to 0.5, the lowest bits are whole units of 2^-24
        float magnitude, sum;
        std::memcpy(&magnitude, &bits, sizeof magnitude);
        sum = magnitude + 0.5f;
        std::memcpy(&bits, &sum, sizeof bits);
        return static_cast<std::uint16_t>(sign | (bits - 0x3f000000u));
    }
    bits += 0xfffu + (bits >> 13 & 1u);
    return static_cast<std::uint16_t>(sign | (bits - 0x38000000u) >> 13);
}

}  // namespace trackbed
