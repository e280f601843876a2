// softmax(q k^T) v over the paged cache, for the queries that share a key-value head.
//
// Keys are read in chunks of 8 blocks. In a chunk each query has its own highest score, weights and weighted sum of
// values; chunks are then joined in order (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
// arXiv:2205.14135). So what a query gets does not depend on which others are worked on with it, and a long context
// can be shared out to threads by spans of chunks. Query heads that share a head read each key once (Ainslie et al.
// 2023, arXiv:2305.13245).
//
// Slots of a block beyond what a query may see are masked; those that were never written are never multiplied.

#include <type_traits>

#include "kernels.h"
#include "simd.h"

namespace trackbed::TRACKBED_ISA {

namespace {

constexpr std::size_t VECS = BLOCK / vec::width;  // of the tokens of a block
constexpr float NOTHING = -INFINITY;
#if defined(__AVX512F__)
constexpr std::size_t ROWS = 8;  // queries at once
#else
constexpr std::size_t ROWS = 4;
#endif

struct Brain {  // bfloat16
    std::uint16_t bits;

    static Brain round(float value) {
        std::uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        if (std::isnan(value)) return {0x7fc0};
        return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
    }
};

inline void load_pairs(const Brain* p, vec& even, vec& odd) { load_bf16_pairs(&p->bits, even, odd); }

inline void load_pairs(const float* p, vec& even, vec& odd) {
    float apart[2][vec::width];
    for (std::size_t i = 0; i < vec::width; ++i) {
        apart[0][i] = p[2 * i];
        apart[1][i] = p[2 * i + 1];
    }
    even = load(apart[0]);
    odd = load(apart[1]);
}

inline void put(Brain& slot, float value) { slot = Brain::round(value); }
inline void put(float& slot, float value) { slot = value; }

template <class Number>
void fetch(const Number* start, std::size_t count) {
#if defined(__GNUC__)
    constexpr std::size_t LINE = 64 / sizeof(Number);
    for (std::size_t i = 0; i < count; i += LINE) __builtin_prefetch(start + i);
#else
    (void)start, (void)count;
#endif
}

// What a query head has of a chunk, and what it looks for there.
struct Row {
    const float* query;
    std::size_t seen;  // tokens of the sequence that it may see
    float scores[CHUNK * BLOCK];
    float highest, total;
};

template <class Number, std::size_t R>
void score(const Number* keys, std::size_t head_dim, Row* rows, std::size_t at) {
    vec scores[R][VECS];
    for (auto& of_row : scores)
        for (vec& s : of_row) s = zero();
    for (std::size_t d = 0; d < head_dim; d += 2, keys += 2 * BLOCK) {
        vec even[VECS], odd[VECS];
#pragma GCC unroll 2
        for (std::size_t v = 0; v < VECS; ++v) load_pairs(keys + 2 * v * vec::width, even[v], odd[v]);
#pragma GCC unroll 8
        for (std::size_t r = 0; r < R; ++r) {
            const vec first = broadcast(rows[r].query[d]), second = broadcast(rows[r].query[d + 1]);
#pragma GCC unroll 2
            for (std::size_t v = 0; v < VECS; ++v)
                scores[r][v] = mul_add(second, odd[v], mul_add(first, even[v], scores[r][v]));
        }
    }
    for (std::size_t r = 0; r < R; ++r)
        for (std::size_t v = 0; v < VECS; ++v) store(rows[r].scores + at + v * vec::width, scores[r][v]);
}

// Scores become weights, of the tokens from `begin` on.
void weigh(Row& row, std::size_t begin, std::size_t tokens) {
    const std::size_t seen = row.seen > begin ? std::min(row.seen - begin, tokens) : 0;
    const std::size_t padded = (tokens + BLOCK - 1) / BLOCK * BLOCK;
    std::fill(row.scores + seen, row.scores + padded, NOTHING);
    row.highest = NOTHING;
    row.total = 0.0f;
    if (seen == 0) {
        std::fill(row.scores, row.scores + padded, 0.0f);
        return;
    }
    vec most = broadcast(NOTHING), total = zero();
    for (std::size_t i = 0; i < padded; i += vec::width) most = greatest(load(row.scores + i), most);
    row.highest = highest(most);
    for (std::size_t i = 0; i < padded; i += vec::width) {
        const vec weight = exponential(sub(load(row.scores + i), broadcast(row.highest)));
        store(row.scores + i, weight);
        total = add(total, weight);
    }
    row.total = sum(total);
}

// Adds the weighted values of a chunk to `sums`, for dimensions [d, d + 2 vectors).
template <class Number, std::size_t R>
void mix(const Number* const* blocks, std::size_t tokens, std::size_t head_dim, std::size_t d, const Row* rows,
         vec (&sums)[R][2]) {
    for (auto& of_row : sums) of_row[0] = of_row[1] = zero();
    for (std::size_t t = 0; t < tokens; t += 2) {
        const Number* pair = blocks[t / BLOCK] + (t % BLOCK * head_dim + 2 * d);
        vec even[2], odd[2];
        load_pairs(pair, even[0], odd[0]);
        load_pairs(pair + 2 * vec::width, even[1], odd[1]);
        const bool both = t + 1 < tokens;
#pragma GCC unroll 8
        for (std::size_t r = 0; r < R; ++r) {
            const vec first = broadcast(rows[r].scores[t]);
            sums[r][0] = mul_add(first, even[0], sums[r][0]);
            sums[r][1] = mul_add(first, even[1], sums[r][1]);
            if (both) {
                const vec second = broadcast(rows[r].scores[t + 1]);
                sums[r][0] = mul_add(second, odd[0], sums[r][0]);
                sums[r][1] = mul_add(second, odd[1], sums[r][1]);
            }
        }
    }
}

// What two states weigh once they share the higher of their highest scores.
struct Shares {
    float highest, old, fresh;

    Shares(float a, float b) : highest(a > b ? a : b), old(std::exp(a - highest)), fresh(std::exp(b - highest)) {}
};

// One chunk for R queries: joined with what they have of the chunks before.
template <class Number, std::size_t R>
void attend_chunk(const Number* const* keys, const Number* const* values, std::size_t begin, std::size_t tokens,
                  std::size_t head_dim, Row* rows, float* mixed, float* highest, float* total) {
    for (std::size_t b = 0; b * BLOCK < tokens; ++b) {
        // Blocks lie apart from one another, so the processor does not see what comes next.
        if ((b + 1) * BLOCK < tokens) fetch(keys[b + 1], BLOCK * head_dim);
        fetch(values[b], BLOCK * head_dim);
        score<Number, R>(keys[b], head_dim, rows, b * BLOCK);
    }
    float old[R], fresh[R];
    for (std::size_t r = 0; r < R; ++r) {
        weigh(rows[r], begin, tokens);
        old[r] = 1.0f;
        fresh[r] = 0.0f;
        if (rows[r].highest == NOTHING && rows[r].total == 0.0f) continue;
        const Shares shares(highest[r], rows[r].highest);
        old[r] = shares.old;
        fresh[r] = shares.fresh;
        highest[r] = shares.highest;
        total[r] = total[r] * shares.old + rows[r].total * shares.fresh;
    }
    const std::size_t padded = padded_head(head_dim);
    for (std::size_t d = 0; d < padded; d += 2 * vec::width) {
        vec sums[R][2];
        mix<Number, R>(values, tokens, head_dim, d, rows, sums);
        for (std::size_t r = 0; r < R; ++r)
            for (std::size_t v = 0; v < 2; ++v) {
                float* into = mixed + r * padded + d + v * vec::width;
                store(into, mul_add(load(into), broadcast(old[r]), mul(sums[r][v], broadcast(fresh[r]))));
            }
    }
}

template <class Number>
void attend_all(const Cache& cache, std::size_t head, const std::int32_t* table, std::size_t first, std::size_t last,
                const Queries& queries, float* mixed, float* highest, float* total) {
    const std::size_t dim = cache.head_dim, rows = queries.tokens * queries.group, padded = padded_head(dim);
    std::fill(mixed, mixed + rows * padded, 0.0f);
    std::fill(highest, highest + rows, NOTHING);
    std::fill(total, total + rows, 0.0f);
    const std::size_t tokens = std::min(last * BLOCK, queries.position + queries.tokens);
    const auto at = [&](void* start, std::size_t block) {
        return static_cast<const Number*>(start) + (static_cast<std::size_t>(table[block]) * cache.kv_heads + head) * BLOCK * dim;
    };
    Row tile[ROWS];
    for (std::size_t begin = first * BLOCK; begin < tokens; begin += CHUNK * BLOCK) {
        const Number *keys[CHUNK], *values[CHUNK];
        for (std::size_t b = 0; b < CHUNK && begin + b * BLOCK < tokens; ++b) {
            keys[b] = at(cache.keys, begin / BLOCK + b);
            values[b] = at(cache.values, begin / BLOCK + b);
        }
        // Queries whose token comes before the chunk see nothing of it.
        const std::size_t skipped = begin > queries.position ? (begin - queries.position) * queries.group : 0;
        for (std::size_t row = skipped; row < rows;) {
            const std::size_t count = std::min(ROWS, rows - row);
            for (std::size_t r = 0; r < count; ++r) {
                const std::size_t token = (row + r) / queries.group;
                tile[r].query = queries.start + token * queries.stride + (row + r) % queries.group * dim;
                tile[r].seen = queries.position + token + 1;
            }
            const std::size_t here = std::min(tile[count - 1].seen, begin + CHUNK * BLOCK);
            const std::size_t seen = std::min(here, tokens) - begin;
            const auto run = [&](auto size) {
                attend_chunk<Number, decltype(size)::value>(keys, values, begin, seen, dim, tile, mixed + row * padded,
                                                            highest + row, total + row);
                row += decltype(size)::value;
            };
            if (ROWS >= 8 && count >= 8) run(std::integral_constant<std::size_t, 8>());
            else if (count >= 4) run(std::integral_constant<std::size_t, 4>());
            else if (count == 3) run(std::integral_constant<std::size_t, 3>());
            else if (count == 2) run(std::integral_constant<std::size_t, 2>());
            else run(std::integral_constant<std::size_t, 1>());
        }
    }
}

template <class Number>
void write(const Cache& cache, std::size_t block, std::size_t place, std::size_t head, const float* key,
           const float* value) {
    const std::size_t dim = cache.head_dim, start = (block * cache.kv_heads + head) * BLOCK * dim;
    Number* keys = static_cast<Number*>(cache.keys) + start + place * 2;
    Number* values = static_cast<Number*>(cache.values) + start + place / 2 * 2 * dim + place % 2;
    for (std::size_t d = 0; d < dim; ++d) {
        put(keys[d / 2 * 2 * BLOCK + d % 2], key[d]);
        put(values[2 * d], value[d]);
    }
}

}  // namespace

// The state of each query, row by row token after token, once it has seen blocks [first, last) of its sequence: what
// it has mixed [padded_head(head_dim)], its highest score, and its total weight. Nothing, -infinity and 0 at first.
void attend(const Cache& cache, std::size_t head, const std::int32_t* table, std::size_t first, std::size_t last,
            const Queries& queries, float* mixed, float* highest, float* total) {
    (cache.wide ? attend_all<float> : attend_all<Brain>)(cache, head, table, first, last, queries, mixed, highest,
                                                         total);
}

// Joins the state of a later span with that of all before.
void merge(const float* mixed, float highest, float total, float* all, float& all_highest, float& all_total,
           std::size_t head_dim) {
    if (total == 0.0f && highest == NOTHING) return;
    const Shares shares(all_highest, highest);
    for (std::size_t d = 0; d < padded_head(head_dim); d += vec::width)
        store(all + d, mul_add(load(all + d), broadcast(shares.old), mul(load(mixed + d), broadcast(shares.fresh))));
    all_highest = shares.highest;
    all_total = all_total * shares.old + total * shares.fresh;
}

// Puts a token's key and value of one head in its slot of the cache.
void write_cache(const Cache& cache, std::size_t block, std::size_t place, std::size_t head, const float* key,
                 const float* value) {
    (cache.wide ? write<float> : write<Brain>)(cache, block, place, head, key, value);
}

}  // namespace trackbed::TRACKBED_ISA
