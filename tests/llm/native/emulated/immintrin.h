// AVX-512 in plain C++, so that kernels written for it run on a processor without it: slow, and lane by lane as Intel's
// Intrinsics Guide says. Only what simd.h uses is here; a kernel that uses more does not compile.

#pragma once

// The compiler's own header, without what it has for a processor that this one is not.
#undef __AVX512F__
#include_next <immintrin.h>
#define __AVX512F__ 1

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

struct floats {
    float v[16];
};
struct bytes {
    alignas(64) std::uint8_t v[64];
};

template <class Lane>
floats each(Lane lane) {
    floats out;
    for (int i = 0; i < 16; ++i) out.v[i] = lane(i);
    return out;
}

template <class Number>
Number lane(const bytes& a, int i) {
    Number value;
    std::memcpy(&value, a.v + i * sizeof value, sizeof value);
    return value;
}

template <class Number, class Lane>
bytes each_of(Lane lane) {
    bytes out;
    for (int i = 0; i < static_cast<int>(64 / sizeof(Number)); ++i) {
        const Number value = lane(i);
        std::memcpy(out.v + i * sizeof value, &value, sizeof value);
    }
    return out;
}

template <class Whole>
Whole load(const void* p) {
    Whole out;
    std::memcpy(&out, p, sizeof out);
    return out;
}

inline floats set1_ps(float x) {
    return each([=](int) { return x; });
}
inline floats mul(floats a, floats b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline floats div(floats a, floats b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline floats add(floats a, floats b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline floats sub(floats a, floats b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline floats fmadd(floats a, floats b, floats c) {
    return each([&](int i) { return std::fmaf(a.v[i], b.v[i], c.v[i]); });
}
// The second operand where either is no number.
inline floats min(floats a, floats b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline floats max(floats a, floats b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline floats abs(floats a) {
    return each([&](int i) { return std::fabs(a.v[i]); });
}
inline float reduce_add(floats a) {
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) a.v[i] += a.v[i + width];
    return a.v[0];
}
inline float reduce_max(floats a) {
    float most = a.v[0];
    for (const float x : a.v) most = x > most ? x : most;
    return most;
}
inline std::uint16_t not_less(floats a, floats b) {  // _CMP_NLT_UQ
    std::uint16_t mask = 0;
    for (int i = 0; i < 16; ++i) mask = static_cast<std::uint16_t>(mask | !(a.v[i] < b.v[i]) << i);
    return mask;
}
inline floats keep(std::uint16_t mask, floats a) {
    return each([&](int i) { return mask >> i & 1 ? a.v[i] : 0.0f; });
}
inline floats round(floats a) {
    return each([&](int i) { return std::nearbyintf(a.v[i]); });
}
inline floats scalef(floats a, floats n) {
    return each([&](int i) { return a.v[i] * std::exp2f(std::floor(n.v[i])); });
}
inline floats from_half(__m256i halves) {
    alignas(32) std::uint16_t lanes[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), halves);
    return each([&](int i) { return _cvtsh_ss(lanes[i]); });
}
inline bytes set1_int32(std::int32_t x) {
    return each_of<std::int32_t>([=](int) { return x; });
}
inline bytes set1_int8(std::int8_t x) {
    return each_of<std::int8_t>([=](int) { return x; });
}
inline bytes shift_left(bytes a, int bits) {
    return each_of<std::uint32_t>([&](int i) { return lane<std::uint32_t>(a, i) << bits; });
}
inline bytes shift_right(bytes a, int bits) {
    return each_of<std::uint16_t>([&](int i) { return static_cast<std::uint16_t>(lane<std::uint16_t>(a, i) >> bits); });
}
inline bytes both(bytes a, bytes b) {
    return each_of<std::uint8_t>([&](int i) { return static_cast<std::uint8_t>(a.v[i] & b.v[i]); });
}
inline floats as_floats(bytes a) { return load<floats>(a.v); }
inline bytes shift_right_signed(bytes a, int bits) {
    return each_of<std::int32_t>([&](int i) { return lane<std::int32_t>(a, i) >> bits; });
}
inline bytes widen(__m256i codes) {
    alignas(32) std::int16_t lanes[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), codes);
    return each_of<std::int32_t>([&](int i) { return std::int32_t{lanes[i]}; });
}
inline floats to_floats(bytes a) {
    return each([&](int i) { return static_cast<float>(lane<std::int32_t>(a, i)); });
}
// To the nearest; what no int32 can hold becomes the lowest.
inline bytes to_int32(floats a) {
    return each_of<std::int32_t>([&](int i) {
        const float whole = std::nearbyintf(a.v[i]);
        return whole >= -0x1p31f && whole < 0x1p31f ? static_cast<std::int32_t>(whole) : INT32_MIN;
    });
}
inline __m128i lowest_bytes(bytes a) {
    alignas(16) std::uint8_t lanes[16];
    for (int i = 0; i < 16; ++i) lanes[i] = a.v[4 * i];
    return _mm_load_si128(reinterpret_cast<const __m128i*>(lanes));
}
// Bytes without a sign times bytes with one, in fours.
inline bytes dpbusd(bytes sum, bytes a, bytes b) {
    return each_of<std::int32_t>([&](int i) {
        std::int32_t total = lane<std::int32_t>(sum, i);
        for (int j = 4 * i; j < 4 * i + 4; ++j) total += std::int32_t{a.v[j]} * static_cast<std::int8_t>(b.v[j]);
        return total;
    });
}

}  // namespace emulated

#define __m512 ::emulated::floats
#define __m512i ::emulated::bytes
#define _mm512_setzero_ps() ::emulated::set1_ps(0.0f)
#define _mm512_set1_ps ::emulated::set1_ps
#define _mm512_loadu_ps(p) ::emulated::load<::emulated::floats>(p)
#define _mm512_storeu_ps(p, a) static_cast<void>(std::memcpy(p, (a).v, 64))
#define _mm512_mul_ps ::emulated::mul
#define _mm512_div_ps ::emulated::div
#define _mm512_add_ps ::emulated::add
#define _mm512_sub_ps ::emulated::sub
#define _mm512_fmadd_ps ::emulated::fmadd
#define _mm512_min_ps ::emulated::min
#define _mm512_max_ps ::emulated::max
#define _mm512_abs_ps ::emulated::abs
#define _mm512_reduce_add_ps ::emulated::reduce_add
#define _mm512_reduce_max_ps ::emulated::reduce_max
#define _mm512_cmp_ps_mask(a, b, how) ::emulated::not_less(a, b)
#define _mm512_maskz_mov_ps ::emulated::keep
#define _mm512_roundscale_ps(a, how) ::emulated::round(a)
#define _mm512_scalef_ps ::emulated::scalef
#define _mm512_cvtph_ps ::emulated::from_half
#define _mm512_loadu_si512(p) ::emulated::load<::emulated::bytes>(p)
#define _mm512_set1_epi32 ::emulated::set1_int32
#define _mm512_set1_epi8 ::emulated::set1_int8
#define _mm512_slli_epi32 ::emulated::shift_left
#define _mm512_srli_epi16 ::emulated::shift_right
#define _mm512_and_si512 ::emulated::both
#define _mm512_castsi512_ps ::emulated::as_floats
#define _mm512_cvtepi16_epi32 ::emulated::widen
#define _mm512_srai_epi32 ::emulated::shift_right_signed
#define _mm512_cvtepi32_ps ::emulated::to_floats
#define _mm512_cvtps_epi32 ::emulated::to_int32
#define _mm512_cvtepi32_epi8 ::emulated::lowest_bytes
#define _mm512_dpbusd_epi32 ::emulated::dpbusd
