// How GGUF stores weights: for each format, what a block of neighbouring weights of a row holds.
//
// A coded weight is scale * (code - zero) + minimum, with one scale and one minimum for each group of the block.
// Layouts: ggml/src/ggml-common.h and ggml-quants.c.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "weight.h"

namespace trackbed {

struct Format {
    const char* name;
    std::size_t weights, bytes;  // of a block
    Kind kind;                   // what its codes or numbers become
    std::size_t group;           // weights that share a scale
    std::int32_t zero;
    bool minimums;
    // Of one block: codes [weights], and scales and minimums [weights / group]. Null for numbers.
    void (*decode)(const std::uint8_t* block, std::uint8_t* codes, float* scales, float* minimums);
};

// A row of numbers as blocks, n to the next 32: of Q8_0, or of Q4_1. Every block has a scale of its own, or all have one.
void encode_q8_0(const float* x, std::size_t n, bool one_scale, std::uint8_t* blocks);
void encode_q4_1(const float* x, std::size_t n, bool one_scale, std::uint8_t* blocks);

// Throws std::invalid_argument with the names that are known.
const Format& find_format(const std::string& name);

float half_to_float(std::uint16_t half);
// To the nearest, halves to even; too large becomes infinity.
std::uint16_t float_to_half(float value);

}  // namespace trackbed
