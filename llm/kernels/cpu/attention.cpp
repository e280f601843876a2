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

struct Code {  // a byte with a sign
    std::int8_t code;
};

inline void load_pairs(const Code* p, vec& even, vec& odd) { load_int8_pairs(&p->code, even, odd); }

inline void put(Brain& slot, float value, float) { slot = Brain::round(value); }
inline void put(float& slot, float value, float) { slot = value; }
inline void put(Code& slot, float value, float inverse) {
    const float whole = std::nearbyint(value * inverse);
    slot.code = static_cast<std::int8_t>(whole > 127.0f ? 127.0f : whole > -127.0f ? whole : -127.0f);
}

template <class T>
void fetch(const T* start, std::size_t count) {
#if defined(__GNUC__)
    constexpr std::size_t LINE = 64 / sizeof(T);
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

template <class T, std::size_t R>
void score(const T* keys, std::size_t head_dim, Row* rows, std::size_t at) {
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
template <class T, std::size_t R>
void mix(const T* const* blocks, std::size_t tokens, std::size_t head_dim, std::size_t d, const Row* rows,
         vec (&sums)[R][2]) {
    for (auto& of_row : sums) of_row[0] = of_row[1] = zero();
    for (std::size_t t = 0; t < tokens; t += 2) {
        const T* pair = blocks[t / BLOCK] + (t % BLOCK * head_dim + 2 * d);
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

// The blocks of a chunk, for one head.
template <class T>
struct Chunk {
    const T *keys[CHUNK], *values[CHUNK];
    const float *key_scales[CHUNK], *value_scales[CHUNK];  // where numbers are codes
};

// Multiplies what queries have of a block's first tokens by these.
void scale(Row* rows, std::size_t count, std::size_t block, std::size_t tokens, const float* scales) {
    for (std::size_t r = 0; r < count; ++r)
        for (std::size_t t = 0; t < tokens; ++t) rows[r].scores[block * BLOCK + t] *= scales[t];
}

// One chunk for R queries: joined with what they have of the chunks before.
template <class T, std::size_t R>
void attend_chunk(const Chunk<T>& chunk, std::size_t begin, std::size_t tokens, std::size_t head_dim, Row* rows,
                  float* mixed, float* highest, float* total) {
    for (std::size_t b = 0; b * BLOCK < tokens; ++b) {
        // Blocks lie apart from one another, so the processor does not see what comes next.
        if ((b + 1) * BLOCK < tokens) fetch(chunk.keys[b + 1], BLOCK * head_dim);
        fetch(chunk.values[b], BLOCK * head_dim);
        score<T, R>(chunk.keys[b], head_dim, rows, b * BLOCK);
        if constexpr (std::is_same_v<T, Code>) scale(rows, R, b, BLOCK, chunk.key_scales[b]);
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
    if constexpr (std::is_same_v<T, Code>)
        for (std::size_t b = 0; b * BLOCK < tokens; ++b)
            scale(rows, R, b, std::min(BLOCK, tokens - b * BLOCK), chunk.value_scales[b]);
    const std::size_t padded = padded_head(head_dim);
    for (std::size_t d = 0; d < padded; d += 2 * vec::width) {
        vec sums[R][2];
        mix<T, R>(chunk.values, tokens, head_dim, d, rows, sums);
        for (std::size_t r = 0; r < R; ++r)
            for (std::size_t v = 0; v < 2; ++v) {
                float* into = mixed + r * padded + d + v * vec::width;
                store(into, mul_add(load(into), broadcast(old[r]), mul(sums[r][v], broadcast(fresh[r]))));
            }
    }
}

template <class T>
void attend_all(const Cache& cache, std::size_t head, const std::int32_t* table, std::size_t first, std::size_t last,
                const Queries& queries, float* mixed, float* highest, float* total) {
    const std::size_t dim = cache.head_dim, rows = queries.tokens * queries.group, padded = padded_head(dim);
    std::fill(mixed, mixed + rows * padded, 0.0f);
    std::fill(highest, highest + rows, NOTHING);
    std::fill(total, total + rows, 0.0f);
    const std::size_t tokens = std::min(last * BLOCK, queries.position + queries.tokens);
    Row tile[ROWS];
    for (std::size_t begin = first * BLOCK; begin < tokens; begin += CHUNK * BLOCK) {
        Chunk<T> chunk{};
        for (std::size_t b = 0; b < CHUNK && begin + b * BLOCK < tokens; ++b) {
            const std::size_t at = static_cast<std::size_t>(table[begin / BLOCK + b]) * cache.kv_heads + head;
            chunk.keys[b] = static_cast<const T*>(cache.keys) + at * BLOCK * dim;
            chunk.values[b] = static_cast<const T*>(cache.values) + at * BLOCK * dim;
            if (std::is_same_v<T, Code>) {
                chunk.key_scales[b] = cache.key_scales + at * BLOCK;
                chunk.value_scales[b] = cache.value_scales + at * BLOCK;
            }
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
                attend_chunk<T, decltype(size)::value>(chunk, begin, seen, dim, tile, mixed + row * padded, highest + row,
                                                            total + row);
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

// The scale that takes the largest of these to 127, and what to multiply them with.
float find_scale(const float* numbers, std::size_t count, float& scale) {
    float largest = 0.0f;
    for (std::size_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(numbers[i]));
    scale = largest / 127.0f;
    return largest > 0.0f ? 127.0f / largest : 0.0f;
}

template <class T>
void write(const Cache& cache, std::size_t block, std::size_t place, std::size_t head, const float* key,
           const float* value) {
    const std::size_t dim = cache.head_dim, start = (block * cache.kv_heads + head) * BLOCK * dim;
    float key_inverse = 0.0f, value_inverse = 0.0f;
    if (std::is_same_v<T, Code>) {
        const std::size_t at = (block * cache.kv_heads + head) * BLOCK + place;
        key_inverse = find_scale(key, dim, cache.key_scales[at]);
        value_inverse = find_scale(value, dim, cache.value_scales[at]);
    }
    T* keys = static_cast<T*>(cache.keys) + start + place * 2;
    T* values = static_cast<T*>(cache.values) + start + place / 2 * 2 * dim + place % 2;
    for (std::size_t d = 0; d < dim; ++d) {
        put(keys[d / 2 * 2 * BLOCK + d % 2], key[d], key_inverse);
        put(values[2 * d], value[d], value_inverse);
    }
}

}  // namespace

// The state of each query, row by row token after token, once it has seen blocks [first, last) of its sequence: what
// it has mixed [padded_head(head_dim)], its highest score, and its total weight. Nothing, -infinity and 0 at first.
void attend(const Cache& cache, std::size_t head, const std::int32_t* table, std::size_t first, std::size_t last,
            const Queries& queries, float* mixed, float* highest, float* total) {
    const auto run = cache.number == Number::float32    ? attend_all<float>
                     : cache.number == Number::bfloat16 ? attend_all<Brain>
                                                        : attend_all<Code>;
    run(cache, head, table, first, last, queries, mixed, highest, total);
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
    const auto run = cache.number == Number::float32    ? write<float>
                     : cache.number == Number::bfloat16 ? write<Brain>
                                                        : write<Code>;
    run(cache, block, place, head, key, value);
}

}  // namespace trackbed::TRACKBED_ISA
