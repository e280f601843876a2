// Every kernel, once per instruction set that it is compiled for.

#pragma once

#include <cstddef>
#include <cstdint>

#include "weight.h"

namespace trackbed {

// Activations that meet a weight: numbers, or codes in groups of 32 with a scale each.
struct Input {
    std::size_t width;            // padded columns, a multiple of 32; what fills up is zero
    const float* numbers;         // [rows][width]
    const std::int8_t* codes;     // [rows][width], -127 to 127
    const float* scales;          // [rows][width / 32]
    const std::int32_t* sums;     // [rows][width / 16], of the codes
};

// How keys and values are kept. A byte is a code from -127 to 127, with one scale for each token and head.
enum class Number { float32, bfloat16, int8 };

// A layer's keys and values, in blocks of 16 tokens.
//
// Of a block, head by head, keys as [head_dim / 2][16][2] and values as [8][head_dim][2]: pairs of neighbouring
// numbers of a token's key, and of neighbouring tokens' values. Scales, where there are any, as [16].
struct Cache {
    void* keys;
    void* values;
    float* key_scales;
    float* value_scales;
    Number number;
    std::size_t kv_heads, head_dim;
};

constexpr std::size_t BLOCK = 16;      // tokens of a block
constexpr std::size_t CHUNK = 8;       // blocks whose weights are summed before they meet those of others
constexpr std::size_t SPAN = 4 * CHUNK;  // blocks that one thread reads for a single token

// Numbers that a query's state has room for: loads of two whole vectors are allowed to run over.
constexpr std::size_t padded_head(std::size_t head_dim) { return (head_dim + 31) / 32 * 32; }

// The queries of one key-value head that are worked on together, token by token, and of each token head by head.
struct Queries {
    const float* start;    // of the first token's first head; scaled by 1 / sqrt(head_dim)
    std::size_t stride;    // from token to token
    std::size_t tokens, group;
    std::size_t position;  // of the first token in its sequence; the others follow it
};

}  // namespace trackbed

#define TRACKBED_KERNELS(isa)                                                                                       \
    namespace trackbed::isa {                                                                                       \
    void rms_norm(const float* x, const float* weight, float eps, float* out, std::size_t rows, std::size_t n);     \
    void quantise(const float* x, std::size_t n, std::size_t width, std::int8_t* codes, float* scales,              \
                  std::int32_t* sums);                                                                              \
    void multiply(const Weight& weight, std::size_t panel, const Input& input, std::size_t row, std::size_t rows,   \
                  float* out);                                                                                      \
    void swiglu(const float* gate, const float* up, float* out, std::size_t n);                                     \
    void gelu(float* x, std::size_t n);                                                                             \
    void rope(float* head, const float* cosines, const float* sines, float scale, std::size_t head_dim);            \
    void write_cache(const Cache& cache, std::size_t block, std::size_t place, std::size_t head, const float* key,  \
                     const float* value);                                                                           \
    void attend(const Cache& cache, std::size_t head, const std::int32_t* table, std::size_t first,                 \
                std::size_t last, const Queries& queries, float* mixed, float* highest, float* total);              \
    void merge(const float* mixed, float highest, float total, float* all, float& all_highest, float& all_total,    \
               std::size_t head_dim);                                                                               \
    std::size_t sample(const float* logits, std::size_t n, float temperature, double top_p, double drawn);          \
    }

TRACKBED_KERNELS(generic)
TRACKBED_KERNELS(avx2)
TRACKBED_KERNELS(avx512)

namespace trackbed {

// The kernels of one instruction set.
struct Kernels {
    const char* isa;
    decltype(&generic::rms_norm) rms_norm;
    decltype(&generic::quantise) quantise;
    decltype(&generic::multiply) multiply;
    decltype(&generic::swiglu) swiglu;
    decltype(&generic::gelu) gelu;
    decltype(&generic::rope) rope;
    decltype(&generic::write_cache) write_cache;
    decltype(&generic::attend) attend;
    decltype(&generic::merge) merge;
    decltype(&generic::sample) sample;
};

}  // namespace trackbed
