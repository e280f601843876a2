// out = x W^T for one panel of W: 32 outputs of some rows of x.
//
// Coded weights meet coded activations: of each group the products are summed in whole numbers, then scaled and added
// in float32, group by group in order. So an output is the same number however many rows, panels or threads share
// the work. W = factor * (scale * (code - zero) + minimum), and the sum over a group of (code - zero) * x is that of
// code * x less zero times that of x (Jacob et al. 2018, arXiv:1712.05877, section 2.3).
//
// Plain numbers are multiplied and added in float32, column by column in order.

#include "kernels.h"
#include "simd.h"

#include <type_traits>

namespace trackbed::TRACKBED_ISA {

namespace {

constexpr std::size_t VECS = PANEL / vec::width;  // of a panel
constexpr std::size_t PAIRS = VECS / 2;           // one vector of outputs from the low half, and one from the high half
constexpr std::size_t SUMMED = 16;                // activations whose codes' sum is known

// Rows of one pair at once: as many as the registers hold. Where these are few, the steps of a group are not unrolled,
// since the compiler would keep their codes, and not the sums.
#if defined(__AVX512F__)
constexpr int ROWS = 6;
#define TRACKBED_UNROLL_STEPS _Pragma("GCC unroll 8")
#else
constexpr int ROWS = 3;
#define TRACKBED_UNROLL_STEPS _Pragma("GCC unroll 1")
#endif

template <int P>
void load_steps(Nibbles, const std::uint8_t* step, std::size_t first, Nibbles::step (&codes)[2 * P]) {
    for (int p = 0; p < P; ++p)
        Nibbles::load(step + (first + p) * vec::width * 4, codes[2 * p], codes[2 * p + 1]);
}

template <int P>
void load_steps(Bytes, const std::uint8_t* step, std::size_t first, Bytes::step (&codes)[2 * P]) {
    for (int p = 0; p < P; ++p) {
        codes[2 * p] = Bytes::load(step + (first + p) * vec::width * 4);
        codes[2 * p + 1] = Bytes::load(step + (first + p + PAIRS) * vec::width * 4);
    }
}

// Where a vector's outputs begin in the panel.
constexpr std::size_t place(std::size_t first, int v) { return (first + v / 2 + (v % 2 ? PAIRS : 0)) * vec::width; }

// R rows and P pairs of vectors of outputs, from pair `first` on.
template <class Codes, bool MINIMUMS, int STEPS, int R, int P>
void coded_tile(const Weight& weight, std::size_t panel, std::size_t first, const Input& input, std::size_t row,
                float* out) {
    constexpr int V = 2 * P;
    constexpr std::size_t COLUMNS = STEPS * 4, STEP = PANEL * 4 / (std::is_same_v<Codes, Nibbles> ? 2 : 1);
    const std::size_t groups = weight.groups(), width = input.width;
    const std::uint8_t* codes = weight.codes.as<std::uint8_t>() + panel * weight.panel_bytes();
    const std::uint16_t* scales = weight.scales.as<std::uint16_t>() + panel * groups * PANEL;
    const std::uint16_t* minimums = MINIMUMS ? weight.minimums.as<std::uint16_t>() + panel * groups * PANEL : nullptr;
    const std::int8_t* x = input.codes + row * width;
    const float* x_scales = input.scales + row * (width / GROUP);
    const std::int32_t* x_sums = input.sums + row * (width / SUMMED);

    vec total[R][V];
    for (auto& of_row : total)
        for (vec& t : of_row) t = zero();
    for (std::size_t g = 0; g < groups; ++g) {
        std::int32_t x_sum[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const std::int32_t* sums = x_sums + r * (width / SUMMED) + g * (COLUMNS / SUMMED);
            x_sum[r] = COLUMNS == SUMMED ? sums[0] : sums[0] + sums[1];
        }
        typename Codes::sums sum[R][V];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[r][v] = Codes::start(-weight.zero * x_sum[r]);
TRACKBED_UNROLL_STEPS
        for (int s = 0; s < STEPS; ++s) {
            typename Codes::step step[V];
            load_steps<P>(Codes(), codes, first, step);
            codes += STEP;
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const typename Codes::step four = Codes::four(x + r * width + 4 * s);
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[r][v] = Codes::add(sum[r][v], step[v], four);
            }
        }
        x += COLUMNS;
        vec scale[V], minimum[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            scale[v] = load_f16(scales + g * PANEL + place(first, v));
            if (MINIMUMS) minimum[v] = load_f16(minimums + g * PANEL + place(first, v));
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const float x_scale = x_scales[r * (width / GROUP) + g * COLUMNS / GROUP];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) {
                const vec product = Codes::finish(sum[r][v], -weight.zero * x_sum[r]);
                total[r][v] = mul_add(mul(broadcast(x_scale), scale[v]), product, total[r][v]);
                if (MINIMUMS)
                    total[r][v] = mul_add(minimum[v], broadcast(x_scale * static_cast<float>(x_sum[r])), total[r][v]);
            }
        }
    }
    const float* factors = weight.factors.as<float>() + panel * PANEL;
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
            store(out + r * PANEL + place(first, v), mul(total[r][v], load(factors + place(first, v))));
}

// Two columns of `width` outputs each.
inline void load_columns(const float* p, vec (&columns)[2]) {
    columns[0] = load(p);
    columns[1] = load(p + PANEL);
}

struct Half {  // float16
    std::uint16_t bits;
};
struct Brain {  // bfloat16
    std::uint16_t bits;
};

inline void load_columns(const Half* p, vec (&columns)[2]) {
    columns[0] = load_f16(&p->bits);
    columns[1] = load_f16(&p[PANEL].bits);
}

inline void load_columns(const Brain* p, vec (&columns)[2]) { load_bf16_pairs(&p->bits, columns[0], columns[1]); }

template <class Number, int R, int P>
void number_tile(const Weight& weight, std::size_t panel, std::size_t first, const Input& input, std::size_t row,
                 float* out) {
    constexpr int V = 2 * P;
    constexpr std::size_t STRIDE = std::is_same_v<Number, Brain> ? 2 : 1;
    const Number* numbers = weight.codes.as<Number>() + panel * weight.width * PANEL;
    const float* x = input.numbers + row * input.width;
    vec total[R][V];
    for (auto& of_row : total)
        for (vec& t : of_row) t = zero();
    for (std::size_t k = 0; k < weight.width; k += 2) {
        vec columns[V][2];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) load_columns(numbers + k * PANEL + place(first, v) * STRIDE, columns[v]);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int c = 0; c < 2; ++c) {
                const vec value = broadcast(x[r * input.width + k + c]);
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) total[r][v] = mul_add(value, columns[v][c], total[r][v]);
            }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) store(out + r * PANEL + place(first, v), total[r][v]);
}

using Tile = void (*)(const Weight&, std::size_t, std::size_t, const Input&, std::size_t, float*);

struct Tiles {
    Tile rows;  // ROWS rows, one pair
    Tile row;   // one row, all pairs
};

template <class Codes, bool MINIMUMS, int STEPS>
constexpr Tiles coded() {
    return {coded_tile<Codes, MINIMUMS, STEPS, ROWS, 1>, coded_tile<Codes, MINIMUMS, STEPS, 1, PAIRS>};
}

template <class Number>
constexpr Tiles numbers() {
    return {number_tile<Number, ROWS, 1>, number_tile<Number, 1, PAIRS>};
}

template <class Codes>
Tiles find_coded(const Weight& weight) {
    if (weight.group == GROUP)
        return weight.minimums.size() ? coded<Codes, true, 8>() : coded<Codes, false, 8>();
    return weight.minimums.size() ? coded<Codes, true, 4>() : coded<Codes, false, 4>();
}

Tiles find_tiles(const Weight& weight) {
    switch (weight.kind) {
        case Kind::nibbles: return find_coded<Nibbles>(weight);
        case Kind::bytes: return find_coded<Bytes>(weight);
        case Kind::float16: return numbers<Half>();
        case Kind::bfloat16: return numbers<Brain>();
        default: return numbers<float>();
    }
}

}  // namespace

void multiply(const Weight& weight, std::size_t panel, const Input& input, std::size_t row, std::size_t rows,
              float* out) {
    const Tiles tiles = find_tiles(weight);
    while (rows >= ROWS) {
        for (std::size_t pair = 0; pair < PAIRS; ++pair) tiles.rows(weight, panel, pair, input, row, out);
        row += ROWS;
        rows -= ROWS;
        out += ROWS * PANEL;
    }
    for (; rows > 0; --rows, ++row, out += PANEL) tiles.row(weight, panel, 0, input, row, out);
}

}  // namespace trackbed::TRACKBED_ISA
