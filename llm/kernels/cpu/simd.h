// The vector of the instruction set that this file is compiled for, as few operations as the kernels need.
//
// Every kernel's source is compiled once per instruction set, each time with TRACKBED_ISA naming its
// namespace and with the flags that let the compiler use it. Without such flags the vector is one float, in
// plain C++ that is right on any processor.
//
// `load` and `store` take any alignment and touch exactly `width` floats.

#pragma once

#include <cmath>
#include <cstddef>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#endif

#ifndef TRACKBED_ISA
#define TRACKBED_ISA generic
#endif

namespace trackbed::TRACKBED_ISA {

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
inline vec add(vec a, vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline vec mul_add(vec a, vec b, vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
inline float sum(vec a) { return _mm512_reduce_add_ps(a.v); }

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
inline vec add(vec a, vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline vec mul_add(vec a, vec b, vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
inline float sum(vec a) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

#else

struct vec {
    static constexpr std::size_t width = 1;
    float v;
};
inline vec zero() { return {0.0f}; }
inline vec broadcast(float x) { return {x}; }
inline vec load(const float* p) { return {*p}; }
inline void store(float* p, vec a) { *p = a.v; }
inline vec mul(vec a, vec b) { return {a.v * b.v}; }
inline vec add(vec a, vec b) { return {a.v + b.v}; }
inline vec mul_add(vec a, vec b, vec c) { return {a.v * b.v + c.v}; }  // a * b + c
inline float sum(vec a) { return a.v; }

#endif

}  // namespace trackbed::TRACKBED_ISA
