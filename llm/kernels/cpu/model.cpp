// One pass of Llama (Touvron et al. 2023, arXiv:2302.13971), as phases that a pool of threads shares.
//
// Few rows are normed and quantised by each thread for itself, which costs less than waiting for one another; many
// rows are shared out. Of the last layer only the wanted rows go beyond attention.

#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "pool.h"

namespace trackbed {

namespace {

constexpr std::size_t ROWS = 24;             // of a tile: a multiple of what every instruction set does at once
constexpr std::size_t FEW = 16384;           // activations that a thread quantises for itself
constexpr std::size_t CACHED = 192 * 1024;   // activations that are read again and again: bytes that stay near a core
constexpr std::size_t CHUNKS = 6;            // of a phase, for each thread
constexpr std::size_t TILE_QUERIES = 64;     // that read the same keys
constexpr std::size_t SUMMED = GROUP / 2;      // activations whose codes' sum is kept
constexpr std::size_t LINE = 64;

constexpr std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

std::size_t padded(std::size_t columns) { return ceil_div(columns, GROUP) * GROUP; }

// How the weights that read them want activations: as codes, as plain numbers, or as both.
struct Forms {
    bool coded = false, plain = false;

    void add(const Weight& weight) { (weight.coded() ? coded : plain) = true; }
};

// Activations as weights want them, for so many rows of so many columns.
class Activations {
   public:
    void resize(std::size_t rows, std::size_t columns) {
        n = columns;
        width = padded(columns);
        if (numbers.size() < rows * width) {
            numbers.resize(rows * width);
            codes.resize(rows * width);
            scales.resize(rows * width / GROUP);
            sums.resize(rows * width / SUMMED);
        }
    }

    void put(const Kernels& kernels, Forms forms, std::size_t row, const float* x) {
        if (forms.coded)
            kernels.quantise(x, n, width, &codes[row * width], &scales[row * width / GROUP], &sums[row * width / SUMMED]);
        if (forms.plain) std::fill(std::copy(x, x + n, &numbers[row * width]), numbers.data() + (row + 1) * width, 0.0f);
    }

    // What its codes leave of a row, in codes of its own.
    void put_rest(const Kernels& kernels, Forms forms, std::size_t row, const float* x) {
        put(kernels, forms, row, x);
        thread_local std::vector<float> rest;
        rest.resize(std::max(rest.size(), n));
        for (std::size_t i = 0; i < n; ++i)
            rest[i] = x[i] - static_cast<float>(codes[row * width + i]) * scales[(row * width + i) / GROUP];
        put(kernels, forms, row, rest.data());
    }

    // The 32 columns of one group.
    void put_group(const Kernels& kernels, Forms forms, std::size_t row, std::size_t group, const float* x) {
        if (forms.coded)
            kernels.quantise(x, GROUP, GROUP, &codes[row * width + group * GROUP], &scales[row * width / GROUP + group],
                             &sums[row * width / SUMMED + 2 * group]);
        if (forms.plain) std::copy(x, x + GROUP, &numbers[row * width + group * GROUP]);
    }

    Input input() const { return {width, numbers.data(), codes.data(), scales.data(), sums.data()}; }

   private:
    std::size_t n = 0, width = 0;
    std::vector<float> numbers, scales;
    std::vector<std::int8_t> codes;
    std::vector<std::int32_t> sums;
};

}  // namespace

namespace {

constexpr std::size_t size_of(Number number) {
    return number == Number::float32 ? sizeof(float) : number == Number::bfloat16 ? sizeof(std::uint16_t) : 1;
}

}  // namespace

PagedCache::PagedCache(std::size_t layers, std::size_t blocks, std::size_t kv_heads, std::size_t head_dim, Number number)
    : layers(layers), blocks(blocks), kv_heads(kv_heads), head_dim(head_dim), number(number),
      // Whole vectors are read at the end of a head, whatever its size.
      keys_(layers * blocks * kv_heads * BLOCK * head_dim * size_of(number) + 8 * LINE), values_(keys_.size()),
      scales_(number == Number::int8 ? 2 * layers * blocks * kv_heads * BLOCK * sizeof(float) : 0) {}

std::size_t PagedCache::block_bytes(std::size_t layers, std::size_t kv_heads, std::size_t head_dim, Number number) {
    return 2 * layers * kv_heads * BLOCK * (head_dim * size_of(number) + (number == Number::int8 ? sizeof(float) : 0));
}

std::vector<Cache> PagedCache::views() const {
    std::vector<Cache> found;
    const std::size_t tokens = blocks * kv_heads * BLOCK, bytes = tokens * head_dim * size_of(number);
    for (std::size_t i = 0; i < layers; ++i) {
        float* scales = scales_.size() ? scales_.as<float>() + 2 * i * tokens : nullptr;
        found.push_back({keys_.as<unsigned char>() + i * bytes, values_.as<unsigned char>() + i * bytes, scales,
                         scales ? scales + tokens : nullptr, number, kv_heads, head_dim});
    }
    return found;
}

void PagedCache::fill(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    std::fill_n(scales_.as<std::uint32_t>(), scales_.size() / sizeof bits, bits);
    for (const Memory* memory : {&keys_, &values_})
        if (number == Number::bfloat16)
            std::fill_n(memory->as<std::uint16_t>(), memory->size() / sizeof(std::uint16_t),
                        static_cast<std::uint16_t>(bits >> 16));
        else  // codes are no numbers by themselves: their scales are
            std::fill_n(memory->as<std::uint32_t>(), memory->size() / sizeof bits, bits);
}

Model::Model(Weights weights) : weights_(std::make_shared<const Weights>(std::move(weights))) {
    const Weights& w = *weights_;
    const Shape& s = w.shape;
    const auto fits = [](const Weight& weight, std::size_t rows, std::size_t columns, const char* name) {
        if (weight.rows != rows || weight.columns != columns)
            throw std::invalid_argument(std::string(name) + " is [" + std::to_string(weight.rows) + ", " +
                                        std::to_string(weight.columns) + "]; expected is [" + std::to_string(rows) +
                                        ", " + std::to_string(columns) + "]");
    };
    const auto long_enough = [](const std::vector<float>& vector, std::size_t n, const char* name) {
        if (vector.size() != n)
            throw std::invalid_argument(std::string(name) + " is [" + std::to_string(vector.size()) + "]; expected is [" +
                                        std::to_string(n) + "]");
    };
    if (s.kv_heads == 0 || s.heads % s.kv_heads || s.head_dim == 0 || s.head_dim % 2)
        throw std::invalid_argument("heads, key-value heads and the size of a head do not fit");
    const std::size_t heads = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    for (const Layer& layer : w.layers) {
        fits(*layer.query, heads, s.hidden, "query");
        fits(*layer.key, kv, s.hidden, "key");
        fits(*layer.value, kv, s.hidden, "value");
        fits(*layer.output, s.hidden, heads, "output");
        fits(*layer.gate, s.intermediate, s.hidden, "gate");
        fits(*layer.up, s.intermediate, s.hidden, "up");
        fits(*layer.down, s.hidden, s.intermediate, "down");
        long_enough(layer.attention_norm, s.hidden, "attention_norm");
        long_enough(layer.mlp_norm, s.hidden, "mlp_norm");
    }
    fits(*w.head, w.head->rows, s.hidden, "head");
    long_enough(w.norm, s.hidden, "norm");
    long_enough(w.frequencies, s.head_dim / 2, "frequencies");
}

std::size_t Model::bytes() const {
    std::size_t total = weights_->head->bytes();
    for (const Layer& layer : weights_->layers)
        for (const auto* weight :
             {&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up, &layer.down})
            total += (*weight)->bytes();
    return total;
}

void multiply_all(const Kernels& kernels, const float* x, std::size_t rows, const Weight& weight, std::size_t threads,
                  float* out) {
    Activations activations;
    activations.resize(rows, weight.columns);
    Forms forms;
    forms.add(weight);
    for (std::size_t row = 0; row < rows; ++row) activations.put(kernels, forms, row, x + row * weight.columns);
    const Input input = activations.input();
    pool().each(threads, weight.panels, [&](std::size_t panel) {
        alignas(LINE) float tile[ROWS * PANEL];
        const std::size_t columns = std::min(PANEL, weight.rows - panel * PANEL);
        for (std::size_t row = 0; row < rows; row += ROWS) {
            const std::size_t count = std::min(ROWS, rows - row);
            kernels.multiply(weight, panel, input, row, count, tile);
            for (std::size_t r = 0; r < count; ++r)
                std::copy_n(tile + r * PANEL, columns, out + (row + r) * weight.rows + panel * PANEL);
        }
    });
}

// One pass while it runs. Threads share it, and touch what changes inside of chunks alone.
class Pass {
   public:
    static constexpr std::size_t PHASES_OF_LAYER = 11, OTHER_PHASES = 8;

    Pass(std::shared_ptr<const Weights> weights, const Kernels& kernels, Tokens tokens, const PagedCache& cache,
         std::size_t threads, float* logits);

    void walk(Walk& walk);

   private:
    // The rows that products read.
    struct Source {
        const float* start;  // or null, where `shared` holds them already
        std::size_t rows, columns;
        const float* norm;  // or null
        Activations& shared;
        bool fine = false;  // whether of each row there are two: its codes, and codes of what these leave
    };
    // One matrix of those that read the same rows, and where its outputs go.
    struct Product {
        const Weight* weight;
        float* out;
        std::size_t stride;
    };
    // Queries of one sequence and one key-value head, and the blocks that they read.
    struct Attention {
        std::size_t sequence, head;
        std::size_t token, count;  // in the batch
        std::size_t first, last;
        std::size_t state;  // where what they find is kept until spans are merged
    };

    template <class Run>
    bool products(Walk& walk, const Source& source, Forms forms, std::size_t panels, Run&& run);
    bool store(Walk& walk, const Source& source, const std::vector<Product>& into, bool added);
    bool gate_and_up(Walk& walk, const Source& source, const Layer& layer);
    bool read_out(Walk& walk, const float* x, std::size_t rows);
    bool embed(Walk& walk);
    bool attend(Walk& walk, std::size_t layer);
    bool keep_wanted(Walk& walk);
    void plan_attention();
    void turn_and_write(const Cache& cache, std::size_t token);
    void finish(const Attention& task, const float* mixed, const float* total);

    const std::shared_ptr<const Weights> weights_;
    const Kernels& k_;
    const Shape& s_;
    const Tokens tokens_;
    const std::vector<Cache> caches_;  // of each layer
    const std::size_t threads_, count_, heads_, kv_, group_;
    float* const logits_;

    std::vector<std::size_t> positions_, sequences_;  // of each token
    std::vector<float> x_, qkv_, mixed_, cosines_, sines_, wanted_x_, wanted_mixed_;
    Activations normed_, attended_, hidden_;
    std::size_t state_size_;          // floats of a state: mixed, highest and total of all its queries
    std::vector<float> states_;       // of spans
    std::vector<Attention> reads_;    // a span of one, or all spans in turn
    std::vector<Attention> merges_;   // of states that lie side by side
};

Pass::Pass(std::shared_ptr<const Weights> weights, const Kernels& kernels, Tokens tokens, const PagedCache& cache,
           std::size_t threads, float* logits)
    : weights_(std::move(weights)), k_(kernels), s_(weights_->shape), tokens_(std::move(tokens)), caches_(cache.views()),
      threads_(threads), count_(tokens_.ids.size()), heads_(s_.heads * s_.head_dim), kv_(s_.kv_heads * s_.head_dim),
      group_(s_.heads / s_.kv_heads), logits_(logits) {
    for (std::size_t i = 0; i < tokens_.lengths.size(); ++i)
        for (std::size_t t = 0; t < tokens_.lengths[i]; ++t) {
            positions_.push_back(tokens_.contexts[i] - tokens_.lengths[i] + t);
            sequences_.push_back(i);
        }
    x_.resize(count_ * s_.hidden);
    qkv_.resize(count_ * (heads_ + 2 * kv_));
    mixed_.resize(count_ * heads_);
    cosines_.resize(count_ * s_.head_dim / 2);
    sines_.resize(cosines_.size());
    wanted_x_.resize(tokens_.wanted.size() * s_.hidden);
    wanted_mixed_.resize(tokens_.wanted.size() * heads_);
    normed_.resize(std::max(count_, 2 * tokens_.wanted.size()), s_.hidden);
    attended_.resize(count_, heads_);
    hidden_.resize(count_, s_.intermediate);
    plan_attention();
}

void Pass::walk(Walk& walk) {
    if (!embed(walk)) return;
    std::size_t rows = count_;
    float *x = x_.data(), *mixed = mixed_.data();
    const std::size_t wide = heads_ + 2 * kv_;
    for (std::size_t i = 0; i < weights_->layers.size(); ++i) {
        const Layer& layer = weights_->layers[i];
        if (!store(walk, {x, rows, s_.hidden, layer.attention_norm.data(), normed_},
                   {{layer.query.get(), qkv_.data(), wide},
                    {layer.key.get(), qkv_.data() + heads_, wide},
                    {layer.value.get(), qkv_.data() + heads_ + kv_, wide}},
                   false))
            return;
        if (!attend(walk, i)) return;
        if (i + 1 == weights_->layers.size()) {
            if (tokens_.wanted.empty() || !keep_wanted(walk)) return;
            rows = tokens_.wanted.size();
            x = wanted_x_.data();
            mixed = wanted_mixed_.data();
        }
        if (!store(walk, {mixed, rows, heads_, nullptr, attended_}, {{layer.output.get(), x, s_.hidden}}, true)) return;
        if (!gate_and_up(walk, {x, rows, s_.hidden, layer.mlp_norm.data(), normed_}, layer)) return;
        if (!store(walk, {nullptr, rows, s_.intermediate, nullptr, hidden_}, {{layer.down.get(), x, s_.hidden}}, true))
            return;
    }
    read_out(walk, x, rows);
}

// Calls run(input, panel, row, rows) for all panels and all rows, at most ROWS at a time.
template <class Run>
bool Pass::products(Walk& walk, const Source& source, Forms forms, std::size_t panels, Run&& run) {
    const std::size_t rows = source.rows, columns = source.columns, width = padded(columns);
    const auto prepare = [&](Activations& into, std::size_t row) {
        const float* x = source.start + (source.fine ? row / 2 : row) * columns;
        thread_local std::vector<float> normed;
        if (source.norm) {
            normed.resize(std::max(normed.size(), columns));
            k_.rms_norm(x, source.norm, s_.eps, normed.data(), 1, columns);
            x = normed.data();
        }
        if (source.fine && row % 2) into.put_rest(k_, forms, row, x);
        else into.put(k_, forms, row, x);
    };
    const bool own = source.start && rows * width <= FEW;
    if (source.start && !own) {
        constexpr std::size_t SHARE = 8;
        if (!walk.phase(ceil_div(rows, SHARE), [&](std::size_t chunk) {
                for (std::size_t row = chunk * SHARE; row < std::min(rows, (chunk + 1) * SHARE); ++row)
                    prepare(source.shared, row);
            }))
            return false;
    }
    thread_local Activations mine;
    bool prepared = false;

    const std::size_t near = std::max(CACHED / width / ROWS, std::size_t{1}) * ROWS, blocks = ceil_div(rows, near);
    const std::size_t share = ceil_div(panels, std::min(panels, threads_ * CHUNKS)), shares = ceil_div(panels, share);
    return walk.phase(blocks * shares, [&](std::size_t chunk) {
        if (own && !prepared) {
            mine.resize(rows, columns);
            for (std::size_t row = 0; row < rows; ++row) prepare(mine, row);
            prepared = true;
        }
        const Input input = (own ? mine : source.shared).input();
        const std::size_t block = chunk / shares * near, first = chunk % shares * share;
        for (std::size_t panel = first; panel < std::min(panels, first + share); ++panel)
            for (std::size_t row = block; row < std::min(rows, block + near); row += ROWS)
                run(input, panel, row, std::min({ROWS, rows - row, block + near - row}));
    });
}

bool Pass::store(Walk& walk, const Source& source, const std::vector<Product>& into, bool added) {
    Forms forms;
    std::size_t panels = 0;
    for (const Product& product : into) {
        forms.add(*product.weight);
        panels += product.weight->panels;
    }
    return products(walk, source, forms, panels, [&](const Input& input, std::size_t panel, std::size_t row, std::size_t rows) {
        auto product = into.begin();
        for (; panel >= product->weight->panels; ++product) panel -= product->weight->panels;
        alignas(LINE) float tile[ROWS * PANEL];
        k_.multiply(*product->weight, panel, input, row, rows, tile);
        const std::size_t columns = std::min(PANEL, product->weight->rows - panel * PANEL);
        for (std::size_t r = 0; r < rows; ++r) {
            float* out = product->out + (row + r) * product->stride + panel * PANEL;
            if (added)
                for (std::size_t c = 0; c < columns; ++c) out[c] += tile[r * PANEL + c];
            else
                std::copy(tile + r * PANEL, tile + r * PANEL + columns, out);
        }
    });
}

bool Pass::gate_and_up(Walk& walk, const Source& source, const Layer& layer) {
    Forms forms, after;
    forms.add(*layer.gate);
    forms.add(*layer.up);
    after.add(*layer.down);
    return products(walk, source, forms, layer.gate->panels,
                    [&](const Input& input, std::size_t panel, std::size_t row, std::size_t rows) {
                        alignas(LINE) float gate[ROWS * PANEL], up[ROWS * PANEL];
                        k_.multiply(*layer.gate, panel, input, row, rows, gate);
                        k_.multiply(*layer.up, panel, input, row, rows, up);
                        k_.swiglu(gate, up, gate, rows * PANEL);
                        for (std::size_t r = 0; r < rows; ++r)
                            hidden_.put_group(k_, after, row + r, panel, gate + r * PANEL);
                    });
}

// Logits. Rounding goes straight into them here, and reading the weights costs more than a second row: so where
// weights meet codes, a row's rest is multiplied too.
bool Pass::read_out(Walk& walk, const float* x, std::size_t rows) {
    const Weight& head = *weights_->head;
    const bool fine = head.coded();
    const std::size_t parts = fine ? 2 : 1;
    static_assert(ROWS % 2 == 0, "both parts of a row meet in a tile");
    Forms forms;
    forms.add(head);
    return products(walk, {x, parts * rows, s_.hidden, weights_->norm.data(), normed_, fine}, forms, head.panels,
                    [&](const Input& input, std::size_t panel, std::size_t row, std::size_t count) {
                        alignas(LINE) float tile[ROWS * PANEL];
                        k_.multiply(head, panel, input, row, count, tile);
                        const std::size_t columns = std::min(PANEL, head.rows - panel * PANEL);
                        for (std::size_t r = 0; r < count; r += parts) {
                            float* out = logits_ + (row + r) / parts * head.rows + panel * PANEL;
                            for (std::size_t c = 0; c < columns; ++c)
                                out[c] = tile[r * PANEL + c] + (fine ? tile[(r + 1) * PANEL + c] : 0.0f);
                        }
                    });
}

bool Pass::embed(Walk& walk) {
    constexpr std::size_t SHARE = 16;
    return walk.phase(ceil_div(count_, SHARE), [&](std::size_t chunk) {
        const std::size_t first = chunk * SHARE, last = std::min(count_, first + SHARE);
        unpack_rows(weights_->embedding.format, weights_->embedding.data, s_.hidden, &tokens_.ids[first], last - first,
                    &x_[first * s_.hidden]);
        const std::size_t half = s_.head_dim / 2;
        for (std::size_t t = first; t < last; ++t)
            for (std::size_t i = 0; i < half; ++i) {
                const float angle = static_cast<float>(positions_[t]) * weights_->frequencies[i];
                cosines_[t * half + i] = std::cos(angle);
                sines_[t * half + i] = std::sin(angle);
            }
    });
}

// One token's queries and keys are turned, and its keys and values go to the cache.
void Pass::turn_and_write(const Cache& cache, std::size_t token) {
    const std::size_t dim = s_.head_dim, place = positions_[token];
    const float *cosines = &cosines_[token * dim / 2], *sines = &sines_[token * dim / 2];
    float *query = &qkv_[token * (heads_ + 2 * kv_)], *key = query + heads_, *value = key + kv_;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    for (std::size_t head = 0; head < s_.heads; ++head) k_.rope(query + head * dim, cosines, sines, scale, dim);
    const std::int32_t block = tokens_.tables[sequences_[token]][place / BLOCK];
    for (std::size_t head = 0; head < s_.kv_heads; ++head) {
        k_.rope(key + head * dim, cosines, sines, 1.0f, dim);
        k_.write_cache(cache, static_cast<std::size_t>(block), place % BLOCK, head, key + head * dim, value + head * dim);
    }
}

// Tasks of many tokens read all that these see; a few tokens of a long context are read span by span, and merged.
void Pass::plan_attention() {
    const std::size_t most = std::max(TILE_QUERIES / group_, std::size_t{1});
    state_size_ = std::min(most, count_) * group_ * (padded_head(s_.head_dim) + 2);
    std::size_t begin = 0, states = 0;
    for (std::size_t i = 0; i < tokens_.lengths.size(); ++i) {
        const std::size_t length = tokens_.lengths[i], tiles = ceil_div(length, most);
        // The last tiles see most, and so come first.
        for (std::size_t tile = tiles; tile-- > 0;)
            for (std::size_t head = 0; head < s_.kv_heads; ++head) {
                const std::size_t token = tile * most, count = std::min(most, length - token);
                const std::size_t blocks = ceil_div(tokens_.contexts[i] - length + token + count, BLOCK);
                const std::size_t spans = ceil_div(blocks, SPAN);
                const bool split = spans > 1 && tiles * s_.kv_heads * tokens_.lengths.size() < threads_ * CHUNKS;
                if (split) merges_.push_back({i, head, begin + token, count, 0, spans, states});
                for (std::size_t span = 0; span < (split ? spans : 1); ++span)
                    reads_.push_back({i, head, begin + token, count, span * SPAN,
                                      split ? std::min(blocks, (span + 1) * SPAN) : blocks, split ? states++ : SIZE_MAX});
            }
        begin += length;
    }
    states_.resize(states * state_size_);
}

bool Pass::attend(Walk& walk, std::size_t layer) {
    const Cache cache = caches_[layer];
    constexpr std::size_t SHARE = 8;
    if (!walk.phase(ceil_div(count_, SHARE), [&](std::size_t chunk) {
            for (std::size_t t = chunk * SHARE; t < std::min(count_, (chunk + 1) * SHARE); ++t) turn_and_write(cache, t);
        }))
        return false;
    const std::size_t dim = padded_head(s_.head_dim);
    const auto read = [&](const Attention& task, std::size_t first, std::size_t last, float* state) {
        const std::size_t queries = task.count * group_, wide = heads_ + 2 * kv_;
        k_.attend(cache, task.head, tokens_.tables[task.sequence].data(), first, last,
                  {&qkv_[task.token * wide + task.head * group_ * s_.head_dim], wide, task.count, group_,
                   positions_[task.token]},
                  state, state + queries * dim, state + queries * (dim + 1));
    };
    // The state of one span after another joins the first.
    const auto join = [&](std::size_t queries, float* all, const float* state) {
        float *highest = all + queries * dim, *total = highest + queries;
        for (std::size_t q = 0; q < queries; ++q)
            k_.merge(state + q * dim, state[queries * dim + q], state[queries * (dim + 1) + q], all + q * dim, highest[q],
                     total[q], s_.head_dim);
    };
    if (!walk.phase(reads_.size(), [&](std::size_t chunk) {
            const Attention& task = reads_[chunk];
            const std::size_t queries = task.count * group_;
            if (task.state != SIZE_MAX) return read(task, task.first, task.last, &states_[task.state * state_size_]);
            thread_local std::vector<float> all, one;
            all.resize(std::max(all.size(), state_size_));
            one.resize(std::max(one.size(), state_size_));
            for (std::size_t first = 0; first < task.last; first += SPAN) {
                read(task, first, std::min(first + SPAN, task.last), (first ? one : all).data());
                if (first) join(queries, all.data(), one.data());
            }
            finish(task, all.data(), &all[queries * (dim + 1)]);
        }))
        return false;
    if (merges_.empty()) return true;
    return walk.phase(merges_.size(), [&](std::size_t chunk) {
        const Attention& task = merges_[chunk];
        const std::size_t queries = task.count * group_;
        float* all = &states_[task.state * state_size_];
        for (std::size_t span = 1; span < task.last; ++span) join(queries, all, all + span * state_size_);
        finish(task, all, all + queries * (dim + 1));
    });
}

void Pass::finish(const Attention& task, const float* mixed, const float* total) {
    const std::size_t dim = s_.head_dim;
    for (std::size_t q = 0; q < task.count * group_; ++q, mixed += padded_head(dim)) {
        float* out = &mixed_[(task.token + q / group_) * heads_ + (task.head * group_ + q % group_) * dim];
        for (std::size_t d = 0; d < dim; ++d) out[d] = mixed[d] / total[q];
    }
}

bool Pass::keep_wanted(Walk& walk) {
    return walk.phase(1, [&](std::size_t) {
        for (std::size_t i = 0; i < tokens_.wanted.size(); ++i) {
            const std::size_t t = tokens_.wanted[i];
            std::copy_n(&x_[t * s_.hidden], s_.hidden, &wanted_x_[i * s_.hidden]);
            std::copy_n(&mixed_[t * heads_], heads_, &wanted_mixed_[i * heads_]);
        }
    });
}

namespace {

void check(const Weights& weights, const Tokens& tokens, const PagedCache& cache) {
    const Shape& s = weights.shape;
    const auto wrong = [](const std::string& words) { throw std::invalid_argument(words); };
    if (cache.layers != weights.layers.size() || cache.kv_heads != s.kv_heads || cache.head_dim != s.head_dim)
        wrong("the cache is of another model");
    if (tokens.contexts.size() != tokens.lengths.size() || tokens.tables.size() != tokens.lengths.size())
        wrong("lengths, contexts and tables are not of as many sequences");
    std::size_t count = 0;
    for (std::size_t i = 0; i < tokens.lengths.size(); ++i) {
        if (tokens.lengths[i] == 0 || tokens.contexts[i] < tokens.lengths[i]) wrong("a sequence has no new tokens, or more than it has in all");
        if (tokens.tables[i].size() < ceil_div(tokens.contexts[i], BLOCK)) wrong("a sequence has fewer blocks than its tokens need");
        for (const std::int32_t block : tokens.tables[i])
            if (block < 0 || static_cast<std::size_t>(block) >= cache.blocks) wrong("a block is not in the cache");
        count += tokens.lengths[i];
    }
    if (count == 0 || count != tokens.ids.size()) wrong("lengths do not add up to the tokens");
    for (const std::int32_t id : tokens.ids)
        if (id < 0 || static_cast<std::size_t>(id) >= s.vocab) wrong("token " + std::to_string(id) + " is not in the vocabulary");
    for (const std::size_t place : tokens.wanted)
        if (place >= count) wrong("a wanted token is not among the new ones");
}

}  // namespace

void Model::forward(const Kernels& kernels, Tokens tokens, const PagedCache& cache, std::size_t threads,
                    float* logits) const {
    check(*weights_, tokens, cache);
    const auto pass = std::make_shared<Pass>(weights_, kernels, std::move(tokens), cache, threads, logits);
    pool().run(threads, Pass::PHASES_OF_LAYER * weights_->layers.size() + Pass::OTHER_PHASES,
               [pass](Walk& walk) { pass->walk(walk); });
}

}  // namespace trackbed
