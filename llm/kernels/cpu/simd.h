// The vector of the instruction set that this file is compiled for, as few operations as the kernels need.
//
// Every kernel's source is compiled once per instruction set, each time with TRACKBED_ISA naming its
// namespace and with the flags that let the compiler use it. Without such flags a vector is an array of eight
// floats and each operation a loop over it, in plain C++ that is right on any processor.
//
// `load` and `store` take any alignment and touch exactly `width` values.
//
// `Nibbles` and `Bytes` multiply weights, whose codes have no sign, with activations, which have one. Weights
// lie in steps: of each output four neighbouring codes. `load` takes the steps of `width` outputs, and of as many from
// the high halves of bytes; `add` adds to each output's sum the products of a step; `finish` gives the sums as floats
// once the products of a group are in.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#endif

#ifndef TRACKBED_ISA
#define TRACKBED_ISA generic
#endif

namespace trackbed::TRACKBED_ISA {

inline std::int32_t load_int32(const void* p) {
    std::int32_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

#if defined(__AVX512F__)

struct vec {
    static constexpr std::size_t width = 16;
    __m512 v;
};
inline vec zero() { return {_mm512_setzero_ps()}; }
inline vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, vec a) { _mm512_storeu_ps(p, a.v); }
inline vec mul(vec a, vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline vec div(vec a, vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline vec add(vec a, vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline vec sub(vec a, vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline vec mul_add(vec a, vec b, vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
inline vec least(vec a, vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline vec greatest(vec a, vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline vec absolute(vec a) { return {_mm512_abs_ps(a.v)}; }
inline float sum(vec a) { return _mm512_reduce_add_ps(a.v); }
inline float highest(vec a) { return _mm512_reduce_max_ps(a.v); }
// Where a lane of `a` is below `bound` that of `kept` is 0.
inline vec zero_below(vec a, float bound, vec kept) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, _mm512_set1_ps(bound), _CMP_NLT_UQ), kept.v)};
}
inline vec round(vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a * 2^n for whole n that give a normal number.
inline vec scale_by_power(vec a, vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
inline vec load_f16(const std::uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
// 2 * width neighbouring bfloat16: those at even and those at odd places.
inline void load_bf16_pairs(const std::uint16_t* p, vec& even, vec& odd) {
    const __m512i both = _mm512_loadu_si512(p);
    even.v = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    odd.v = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
// 2 * width neighbouring bytes with a sign, in the same way.
inline void load_int8_pairs(const std::int8_t* p, vec& even, vec& odd) {
    const __m512i both = _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    even.v = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(both, 24), 24));
    odd.v = _mm512_cvtepi32_ps(_mm512_srai_epi32(both, 8));
}
// Whole numbers from -128 to 127, as bytes.
inline void store_int8(std::int8_t* p, vec a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}

struct Integers {  // what Nibbles and Bytes share, which differ in how codes are loaded
    using step = __m512i;
    using sums = __m512i;
    static step four(const std::int8_t* p) { return _mm512_set1_epi32(load_int32(p)); }
    static sums start(std::int32_t correction) { return _mm512_set1_epi32(correction); }
    static sums add(sums s, step codes, step x) { return _mm512_dpbusd_epi32(s, codes, x); }
    static vec finish(sums s, std::int32_t) { return {_mm512_cvtepi32_ps(s)}; }
};

struct Nibbles : Integers {
    static void load(const std::uint8_t* p, step& low, step& high) {
        const __m512i both = _mm512_loadu_si512(p), mask = _mm512_set1_epi8(15);
        low = _mm512_and_si512(both, mask);
        high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    }
};

struct Bytes : Integers {
    static step load(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
};

#elif defined(__AVX2__) && defined(__FMA__)

struct vec {
    static constexpr std::size_t width = 8;
    __m256 v;
};
inline vec zero() { return {_mm256_setzero_ps()}; }
inline vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
inline vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, vec a) { _mm256_storeu_ps(p, a.v); }
inline vec mul(vec a, vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline vec div(vec a, vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline vec add(vec a, vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline vec sub(vec a, vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline vec mul_add(vec a, vec b, vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
inline vec least(vec a, vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline vec greatest(vec a, vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline vec absolute(vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline float sum(vec a) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float highest(vec a) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
// Where a lane of `a` is below `bound` that of `kept` is 0.
inline vec zero_below(vec a, float bound, vec kept) {
    return {_mm256_and_ps(_mm256_cmp_ps(a.v, _mm256_set1_ps(bound), _CMP_NLT_UQ), kept.v)};
}
inline vec round(vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a * 2^n for whole n that give a normal number.
inline vec scale_by_power(vec a, vec n) {
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
    return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(power))};
}
inline vec load_f16(const std::uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
// 2 * width neighbouring bfloat16: those at even and those at odd places.
inline void load_bf16_pairs(const std::uint16_t* p, vec& even, vec& odd) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    even.v = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
    odd.v = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
// 2 * width neighbouring bytes with a sign, in the same way.
inline void load_int8_pairs(const std::int8_t* p, vec& even, vec& odd) {
    const __m256i both = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    even.v = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(both, 24), 24));
    odd.v = _mm256_cvtepi32_ps(_mm256_srai_epi32(both, 8));
}
// Whole numbers from -128 to 127, as bytes.
inline void store_int8(std::int8_t* p, vec a) {
    const __m256i whole = _mm256_cvtps_epi32(a.v);
    const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(half, half));
}

// Codes up to 15 times activations up to 127, two by two and eight times over: 30,480 at most, which 16 bits hold.
struct Nibbles {
    using step = __m256i;
    using sums = __m256i;
    static void load(const std::uint8_t* p, step& low, step& high) {
        const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), mask = _mm256_set1_epi8(15);
        low = _mm256_and_si256(both, mask);
        high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
    }
    static step four(const std::int8_t* p) { return _mm256_set1_epi32(load_int32(p)); }
    static sums start(std::int32_t) { return _mm256_setzero_si256(); }
    static sums add(sums s, step codes, step x) { return _mm256_add_epi16(s, _mm256_maddubs_epi16(codes, x)); }
    static vec finish(sums s, std::int32_t correction) {
        const __m256i wide = _mm256_madd_epi16(s, _mm256_set1_epi16(1));
        return {_mm256_cvtepi32_ps(_mm256_add_epi32(wide, _mm256_set1_epi32(correction)))};
    }
};

// Codes up to 255 would overflow 16 bits, so both sides are widened first; two sums an output, joined at the end.
struct Bytes {
    struct step {
        __m256i first, second;
    };
    using sums = step;
    static step load(const std::uint8_t* p) {
        const __m128i* half = reinterpret_cast<const __m128i*>(p);
        return {_mm256_cvtepu8_epi16(_mm_loadu_si128(half)), _mm256_cvtepu8_epi16(_mm_loadu_si128(half + 1))};
    }
    static step four(const std::int8_t* p) {
        const __m256i x = _mm256_cvtepi8_epi16(_mm_set1_epi32(load_int32(p)));
        return {x, x};
    }
    static sums start(std::int32_t) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    static sums add(sums s, step codes, step x) {
        return {_mm256_add_epi32(s.first, _mm256_madd_epi16(codes.first, x.first)),
                _mm256_add_epi32(s.second, _mm256_madd_epi16(codes.second, x.first))};
    }
    static vec finish(sums s, std::int32_t correction) {
        const __m256i joined = _mm256_permute4x64_epi64(_mm256_hadd_epi32(s.first, s.second), 0b11011000);
        return {_mm256_cvtepi32_ps(_mm256_add_epi32(joined, _mm256_set1_epi32(correction)))};
    }
};

#else

struct vec {
    static constexpr std::size_t width = 8;
    float v[width];
};

template <class Function>
inline vec each(Function value) {
    vec out;
    for (std::size_t i = 0; i < vec::width; ++i) out.v[i] = value(i);
    return out;
}
inline vec zero() { return {}; }
inline vec broadcast(float x) {
    return each([=](std::size_t) { return x; });
}
inline vec load(const float* p) {
    return each([=](std::size_t i) { return p[i]; });
}
inline void store(float* p, vec a) { std::copy(a.v, a.v + vec::width, p); }
inline vec mul(vec a, vec b) {
    return each([&](std::size_t i) { return a.v[i] * b.v[i]; });
}
inline vec div(vec a, vec b) {
    return each([&](std::size_t i) { return a.v[i] / b.v[i]; });
}
inline vec add(vec a, vec b) {
    return each([&](std::size_t i) { return a.v[i] + b.v[i]; });
}
inline vec sub(vec a, vec b) {
    return each([&](std::size_t i) { return a.v[i] - b.v[i]; });
}
inline vec mul_add(vec a, vec b, vec c) {  // a * b + c
    return each([&](std::size_t i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline vec least(vec a, vec b) {
    return each([&](std::size_t i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline vec greatest(vec a, vec b) {
    return each([&](std::size_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline vec absolute(vec a) {
    return each([&](std::size_t i) { return std::fabs(a.v[i]); });
}
inline float sum(vec a) {
    return ((a.v[0] + a.v[4]) + (a.v[2] + a.v[6])) + ((a.v[1] + a.v[5]) + (a.v[3] + a.v[7]));
}
inline float highest(vec a) { return *std::max_element(a.v, a.v + vec::width); }
// Where a lane of `a` is below `bound` that of `kept` is 0.
inline vec zero_below(vec a, float bound, vec kept) {
    return each([&](std::size_t i) { return a.v[i] < bound ? 0.0f : kept.v[i]; });
}
inline vec round(vec a) {
    return each([&](std::size_t i) { return std::nearbyint(a.v[i]); });
}
// a * 2^n for whole n that give a normal number.
inline vec scale_by_power(vec a, vec n) {
    return each([&](std::size_t i) { return std::ldexp(a.v[i], static_cast<int>(n.v[i])); });
}
inline float from_bits(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
// Float16 (IEEE 754 binary16) to float32. The product makes a small number normal, and the factor exact.
inline float from_f16(std::uint16_t half) {
    const std::uint32_t magnitude = half & 0x7fffu, sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
    const float value = magnitude >= 0x7c00u ? from_bits(0x7f800000u | (magnitude & 0x3ffu) << 13)
                                             : from_bits(magnitude << 13) * from_bits(0x77800000u);
    return sign ? -value : value;
}
inline vec load_f16(const std::uint16_t* p) {
    return each([=](std::size_t i) { return from_f16(p[i]); });
}
// 2 * width neighbouring bfloat16: those at even and those at odd places.
inline void load_bf16_pairs(const std::uint16_t* p, vec& even, vec& odd) {
    even = each([=](std::size_t i) { return from_bits(static_cast<std::uint32_t>(p[2 * i]) << 16); });
    odd = each([=](std::size_t i) { return from_bits(static_cast<std::uint32_t>(p[2 * i + 1]) << 16); });
}
// 2 * width neighbouring bytes with a sign, in the same way.
inline void load_int8_pairs(const std::int8_t* p, vec& even, vec& odd) {
    even = each([=](std::size_t i) { return static_cast<float>(p[2 * i]); });
    odd = each([=](std::size_t i) { return static_cast<float>(p[2 * i + 1]); });
}
// Whole numbers from -128 to 127, as bytes.
inline void store_int8(std::int8_t* p, vec a) {
    for (std::size_t i = 0; i < vec::width; ++i) p[i] = static_cast<std::int8_t>(a.v[i]);
}

struct Integers {  // what Nibbles and Bytes share, which differ in how codes are loaded
    struct step {
        std::int16_t v[4 * vec::width];
    };
    struct sums {
        std::int32_t v[vec::width];
    };
    static step four(const std::int8_t* p) {
        step x;
        for (std::size_t i = 0; i < 4 * vec::width; ++i) x.v[i] = p[i % 4];
        return x;
    }
    static sums start(std::int32_t correction) {
        sums s;
        std::fill(s.v, s.v + vec::width, correction);
        return s;
    }
    static sums add(sums s, const step& codes, const step& x) {
        for (std::size_t i = 0; i < vec::width; ++i)
            for (std::size_t j = 4 * i; j < 4 * i + 4; ++j) s.v[i] += codes.v[j] * x.v[j];
        return s;
    }
    static vec finish(const sums& s, std::int32_t) {
        return each([&](std::size_t i) { return static_cast<float>(s.v[i]); });
    }
};

struct Nibbles : Integers {
    static void load(const std::uint8_t* p, step& low, step& high) {
        for (std::size_t i = 0; i < 4 * vec::width; ++i) {
            low.v[i] = p[i] & 15;
            high.v[i] = p[i] >> 4;
        }
    }
};

struct Bytes : Integers {
    static step load(const std::uint8_t* p) {
        step codes;
        for (std::size_t i = 0; i < 4 * vec::width; ++i) codes.v[i] = p[i];
        return codes;
    }
};

#endif

// e^x with a relative error of 2e-7, and 0 below the least normal number. x = n log 2 + r, and e^r by its series
// (Cody and Waite 1980, Software Manual for the Elementary Functions, chapter 6).
inline vec exponential(vec x) {
    constexpr float lowest = -87.3f, log2e = 1.44269504f, log2_high = 0.693359375f, log2_low = -2.12194440e-4f;
    const vec bounded = least(greatest(x, broadcast(lowest)), broadcast(88.0f));
    const vec n = round(mul(bounded, broadcast(log2e)));
    const vec r = mul_add(n, broadcast(-log2_low), mul_add(n, broadcast(-log2_high), bounded));
    vec series = broadcast(1.0f / 5040);
    for (const float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
        series = mul_add(series, r, broadcast(factor));
    return zero_below(x, lowest, scale_by_power(series, n));
}

}  // namespace trackbed::TRACKBED_ISA
