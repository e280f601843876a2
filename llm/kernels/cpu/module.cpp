// The bindings of all native code, and the choice of the instruction set it runs with.
//
// Arguments are checked by their types here: dtype, rank, device and layout. The GIL is released while a
// kernel runs.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "model.h"
#include "pool.h"
#include "weight.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace trackbed;

using Matrix = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ConstMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ConstVector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Cube = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using ConstCube = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Codes = nb::ndarray<std::int8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Blocks = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Raw = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void bind_limits(nb::module_& m);  // limits.cpp

namespace {

#define TRACKBED_TABLE(isa)                                                                                         \
    Kernels {                                                                                                       \
        #isa, isa::rms_norm, isa::quantise, isa::multiply, isa::swiglu, isa::gelu, isa::rope, isa::write_cache,     \
            isa::attend, isa::merge, isa::sample                                                                               \
    }

// Those of the instruction sets that this processor runs, best first.
std::vector<Kernels> find_available() {
    std::vector<Kernels> found;
#if defined(TRACKBED_X86)
    __builtin_cpu_init();
#if defined(TRACKBED_EMULATED)
    found.push_back(TRACKBED_TABLE(avx512));
#else
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        found.push_back(TRACKBED_TABLE(avx512));
#endif
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        found.push_back(TRACKBED_TABLE(avx2));
#endif
    found.push_back(TRACKBED_TABLE(generic));
    return found;
}

const std::vector<Kernels> available = find_available();

// Read and changed with the GIL held.
const Kernels* chosen = &available.front();

void use(const std::string& isa) {
    std::string known;
    for (const Kernels& kernels : available) {
        if (kernels.isa == isa) {
            chosen = &kernels;
            return;
        }
        known += (known.empty() ? "" : ", ") + std::string(kernels.isa);
    }
    throw std::invalid_argument("this processor has no '" + isa + "'; it has: " + known);
}

void rms_norm(ConstMatrix x, ConstVector weight, float eps, Matrix out) {
    const std::size_t rows = x.shape(0), n = x.shape(1);
    if (weight.shape(0) != n || out.shape(0) != rows || out.shape(1) != n)
        throw std::invalid_argument("rms_norm: x and out are [rows, n], and weight is [n]");
    const auto run = chosen->rms_norm;
    nb::gil_scoped_release released;
    run(x.data(), weight.data(), eps, out.data(), rows, n);
}

Target find_target(const std::string& name) {
    if (name == "stored") return Target::stored;
    if (name == "float32") return Target::float32;
    if (name == "bfloat16") return Target::bfloat16;
    if (name == "int8") return Target::int8;
    if (name == "int4") return Target::int4;
    if (name == "int8_rows") return Target::int8_rows;
    if (name == "int4_rows") return Target::int4_rows;
    throw std::invalid_argument("weights are kept as 'stored', or become 'float32', 'bfloat16', 'int8', 'int4', "
                                "'int8_rows' or 'int4_rows', not '" + name + "'");
}

Number find_number(const std::string& name) {
    if (name == "float32") return Number::float32;
    if (name == "bfloat16") return Number::bfloat16;
    if (name == "int8") return Number::int8;
    throw std::invalid_argument("a cache is of 'float32', 'bfloat16' or 'int8', not '" + name + "'");
}

std::shared_ptr<Weight> pack_weight(const std::string& format, Raw data, std::size_t rows, std::size_t columns,
                                    const std::string& target, std::size_t head_dim, std::size_t threads) {
    const Target into = find_target(target);
    nb::gil_scoped_release released;
    return pack(format, data.data(), data.size(), rows, columns, into, head_dim, threads);
}

void unpack(const std::string& format, Raw data, Matrix out) {
    const std::size_t rows = out.shape(0), columns = out.shape(1);
    if (data.size() != matrix_bytes(format, rows, columns))
        throw std::invalid_argument("unpack: data is not [rows, columns] in " + format);
    std::vector<std::int32_t> all(rows);
    std::iota(all.begin(), all.end(), 0);
    nb::gil_scoped_release released;
    unpack_rows(format, data.data(), columns, all.data(), rows, out.data());
}

void encode_weight(const std::string& format, Raw data, std::size_t rows, std::size_t columns, const std::string& target,
                   Blocks blocks, std::size_t threads) {
    const Target into = find_target(target);
    if (into == Target::stored || into == Target::float32 || into == Target::bfloat16)
        throw std::invalid_argument("encode: '" + target + "' has no codes");
    if (data.size() != matrix_bytes(format, rows, columns) || blocks.size() != encoded_bytes(rows, columns, into))
        throw std::invalid_argument("encode: data is [rows, columns] in " + format + ", and blocks hold them in codes");
    nb::gil_scoped_release released;
    encode(format, data.data(), rows, columns, into, threads, blocks.data());
}

void linear(ConstMatrix x, const Weight& weight, Matrix out, std::size_t threads) {
    const std::size_t rows = x.shape(0);
    if (x.shape(1) != weight.columns || out.shape(0) != rows || out.shape(1) != weight.rows)
        throw std::invalid_argument("linear: x is [rows, n], weight [m, n] and out [rows, m]");
    const Kernels& kernels = *chosen;
    nb::gil_scoped_release released;
    multiply_all(kernels, x.data(), rows, weight, threads, out.data());
}

void quantise(ConstMatrix x, Codes codes, Matrix scales) {
    const std::size_t rows = x.shape(0), n = x.shape(1), width = (n + GROUP - 1) / GROUP * GROUP;
    if (codes.shape(0) != rows || codes.shape(1) != width || scales.shape(0) != rows || scales.shape(1) != width / GROUP)
        throw std::invalid_argument("quantise: x is [rows, n], codes [rows, n to the next 32], scales one for each 32");
    std::vector<std::int32_t> sums(width / GROUP * 2);
    for (std::size_t row = 0; row < rows; ++row)
        chosen->quantise(x.data() + row * n, n, width, codes.data() + row * width, scales.data() + row * width / GROUP,
                         sums.data());
}

void swiglu(ConstMatrix gate, ConstMatrix up, Matrix out) {
    if (gate.size() % PANEL || up.size() != gate.size() || out.size() != gate.size())
        throw std::invalid_argument("swiglu: gate, up and out are of one size, a multiple of 32");
    chosen->swiglu(gate.data(), up.data(), out.data(), gate.size());
}

void gelu(Matrix x) {
    if (x.size() % 32) throw std::invalid_argument("gelu: x is of a size that is a multiple of 32");
    nb::gil_scoped_release released;
    chosen->gelu(x.data(), x.size());
}

void rope(Matrix heads, ConstVector cosines, ConstVector sines, float scale) {
    if (heads.shape(1) % 2 || cosines.shape(0) != heads.shape(1) / 2 || sines.shape(0) != heads.shape(1) / 2)
        throw std::invalid_argument("rope: heads is [heads, head_dim], and the turns are [head_dim / 2]");
    for (std::size_t head = 0; head < heads.shape(0); ++head)
        chosen->rope(heads.data() + head * heads.shape(1), cosines.data(), sines.data(), scale, heads.shape(1));
}

void write_cache(const PagedCache& cache, std::size_t layer, std::vector<std::int32_t> slots, ConstCube keys,
                 ConstCube values) {
    const std::size_t tokens = slots.size(), heads = cache.kv_heads, dim = cache.head_dim;
    for (const ConstCube* given : {&keys, &values})
        if (given->shape(0) != tokens || given->shape(1) != heads || given->shape(2) != dim)
            throw std::invalid_argument("write_cache: keys and values are [tokens, kv_heads, head_dim]");
    if (layer >= cache.layers) throw std::invalid_argument("write_cache: the cache has no such layer");
    const Cache view = cache.views()[layer];
    for (std::size_t t = 0; t < tokens; ++t) {
        const std::size_t slot = static_cast<std::size_t>(slots[t]);
        if (slot >= cache.blocks * BLOCK) throw std::invalid_argument("write_cache: the cache has no such slot");
        for (std::size_t head = 0; head < heads; ++head)
            chosen->write_cache(view, slot / BLOCK, slot % BLOCK, head, keys.data() + (t * heads + head) * dim,
                                values.data() + (t * heads + head) * dim);
    }
}

std::size_t sample(ConstVector logits, float temperature, double top_p, double drawn) {
    if (logits.size() == 0) throw std::invalid_argument("sample: there are no logits");
    const auto run = chosen->sample;
    nb::gil_scoped_release released;
    return run(logits.data(), logits.size(), temperature, top_p, drawn);
}

// One sequence whose last tokens ask.
void attention(ConstCube query, const PagedCache& cache, std::size_t layer, std::vector<std::int32_t> table,
               std::size_t context, Cube out) {
    const std::size_t tokens = query.shape(0), heads = query.shape(1), dim = query.shape(2);
    if (layer >= cache.layers || dim != cache.head_dim || heads % cache.kv_heads || tokens > context ||
        table.size() * BLOCK < context || out.shape(0) != tokens || out.shape(1) != heads || out.shape(2) != dim)
        throw std::invalid_argument("attention: query and out are [tokens, heads, head_dim], of the cache's heads");
    for (const std::int32_t block : table)
        if (block < 0 || static_cast<std::size_t>(block) >= cache.blocks)
            throw std::invalid_argument("attention: a block is not in the cache");
    const Cache view = cache.views()[layer];
    const std::size_t group = heads / cache.kv_heads, rows = tokens * group, wide = padded_head(dim);
    const std::size_t blocks = (context + BLOCK - 1) / BLOCK;
    std::vector<float> all(rows * (wide + 2)), one(all.size());
    for (std::size_t head = 0; head < cache.kv_heads; ++head) {
        const Queries queries{query.data() + head * group * dim, heads * dim, tokens, group, context - tokens};
        for (std::size_t first = 0; first < blocks; first += SPAN) {
            float* state = (first ? one : all).data();
            chosen->attend(view, head, table.data(), first, std::min(blocks, first + SPAN), queries, state,
                           state + rows * wide, state + rows * (wide + 1));
            for (std::size_t row = 0; first && row < rows; ++row)
                chosen->merge(state + row * wide, state[rows * wide + row], state[rows * (wide + 1) + row],
                              &all[row * wide], all[rows * wide + row], all[rows * (wide + 1) + row], dim);
        }
        for (std::size_t row = 0; row < rows; ++row)
            for (std::size_t d = 0; d < dim; ++d)
                out.data()[(row / group * heads + head * group + row % group) * dim + d] =
                    all[row * wide + d] / all[rows * (wide + 1) + row];
    }
}

using LayerTuple = std::tuple<std::vector<float>, std::vector<float>, std::vector<std::shared_ptr<Weight>>>;

class BoundModel {
   public:
    BoundModel(std::tuple<std::size_t, std::size_t, std::size_t, std::size_t, std::size_t, std::size_t> sizes, float eps,
               const std::string& format, Raw embedding, const std::vector<LayerTuple>& layers, std::vector<float> norm,
               std::shared_ptr<Weight> head, std::vector<float> frequencies)
        : embedding_(embedding), model_(gather(sizes, eps, format, embedding, layers, norm, head, frequencies)) {}

    const Model& model() const { return model_; }

   private:
    static Weights gather(std::tuple<std::size_t, std::size_t, std::size_t, std::size_t, std::size_t, std::size_t> sizes,
                          float eps, const std::string& format, Raw embedding, const std::vector<LayerTuple>& layers,
                          std::vector<float> norm, std::shared_ptr<Weight> head, std::vector<float> frequencies) {
        const auto [vocab, hidden, intermediate, heads, kv_heads, head_dim] = sizes;
        if (embedding.size() != matrix_bytes(format, vocab, hidden))
            throw std::invalid_argument("the embedding is not [vocab, hidden] in " + format);
        Weights weights{{vocab, hidden, intermediate, heads, kv_heads, head_dim, eps},
                        {format, embedding.data()},
                        {},
                        std::move(norm),
                        std::move(head),
                        std::move(frequencies)};
        for (const auto& [attention_norm, mlp_norm, products] : layers) {
            if (products.size() != 7) throw std::invalid_argument("a layer has seven weights");
            weights.layers.push_back({attention_norm, mlp_norm, products[0], products[1], products[2], products[3],
                                      products[4], products[5], products[6]});
        }
        return weights;
    }

    const Raw embedding_;  // keeps the file's memory
    const Model model_;
};

void forward(const BoundModel& model, std::vector<std::int32_t> ids, std::vector<std::size_t> lengths,
             std::vector<std::size_t> contexts, std::vector<std::vector<std::int32_t>> tables,
             std::vector<std::size_t> wanted, const PagedCache& cache, std::size_t threads, Matrix logits) {
    if (logits.shape(0) != wanted.size() || logits.shape(1) != model.model().weights().head->rows)
        throw std::invalid_argument("logits are [wanted, rows of the head]");
    const Kernels& kernels = *chosen;
    nb::gil_scoped_release released;
    model.model().forward(kernels,
                          {std::move(ids), std::move(lengths), std::move(contexts), std::move(tables), std::move(wanted)},
                          cache, threads, logits.data());
}

}  // namespace

NB_MODULE(_cpu, m) {
    nb::set_leak_warnings(false);  // what a program still holds at its end is no fault
    m.doc() = "Native kernels for CPUs, and the whole pass of a model.";
    if (const char* isa = std::getenv("TRACKBED_ISA"); isa && *isa) {
        try {
            use(isa);
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(std::string("TRACKBED_ISA: ") + error.what());
        }
    }
    bind_limits(m);
    m.def(
        "available",
        [] {
            std::vector<std::string> names;
            for (const Kernels& kernels : available) names.push_back(kernels.isa);
            return names;
        },
        "The instruction sets that this processor runs, best first.");
    m.def("isa", [] { return std::string(chosen->isa); }, "The instruction set in use.");
    m.def("use", &use, "isa"_a, "Use this instruction set from now on. Raises ValueError where there is none.");
    m.def("cores", &usable_cores, "How many cores this process may use.");
    m.def("rms_norm", &rms_norm, "x"_a.noconvert(), "weight"_a.noconvert(), "eps"_a, "out"_a.noconvert(),
          "out = x / sqrt(mean(x^2) + eps) * weight, for float32 [rows, n] and [n].");
    nb::class_<Weight>(m, "Weight")
        .def_prop_ro("bytes", &Weight::bytes)
        .def_prop_ro("shape", [](const Weight& weight) { return std::make_tuple(weight.rows, weight.columns); });
    m.def("pack", &pack_weight, "format"_a, "data"_a, "rows"_a, "columns"_a, "target"_a = "stored", "head_dim"_a = 0,
          "threads"_a = 1, "A matrix as a file stores it, in panels.");
    m.def("encode", &encode_weight, "format"_a, "data"_a, "rows"_a, "columns"_a, "target"_a, "blocks"_a.noconvert(),
          "threads"_a = 1, "Numbers as codes, in blocks of GGUF's Q8_0 or Q4_1.");
    m.def("unpack", &unpack, "format"_a, "data"_a, "out"_a.noconvert(),
          "The numbers of a matrix as a file stores it, float32 [rows, columns].");
    m.def("linear", &linear, "x"_a.noconvert(), "weight"_a, "out"_a.noconvert(), "threads"_a = 1,
          "out = x W^T, for float32 [rows, n] and [rows, m].");
    m.def("quantise", &quantise, "x"_a.noconvert(), "codes"_a.noconvert(), "scales"_a.noconvert(),
          "Groups of 32 of float32 [rows, n] as codes from -127 to 127, and a scale each.");
    m.def("swiglu", &swiglu, "gate"_a.noconvert(), "up"_a.noconvert(), "out"_a.noconvert(), "out = silu(gate) * up.");
    m.def("gelu", &gelu, "x"_a.noconvert(), "x Phi(x), in place.");
    m.def("rope", &rope, "heads"_a.noconvert(), "cosines"_a.noconvert(), "sines"_a.noconvert(), "scale"_a,
          "Turn the pairs (i, i + head_dim / 2) of each head in place, and scale it.");
    m.def("sample", &sample, "logits"_a.noconvert(), "temperature"_a, "top_p"_a, "drawn"_a,
          "The token of the nucleus at which its weights, added up, reach `drawn` of their sum.");
    nb::class_<PagedCache>(m, "Cache")
        .def(
            "__init__",
            [](PagedCache* self, std::size_t layers, std::size_t blocks, std::size_t kv_heads, std::size_t head_dim,
               const std::string& dtype) {
                new (self) PagedCache(layers, blocks, kv_heads, head_dim, find_number(dtype));
            },
            "layers"_a, "blocks"_a, "kv_heads"_a, "head_dim"_a, "dtype"_a = "bfloat16")
        .def_prop_ro("bytes", &PagedCache::bytes)
        .def("fill", &PagedCache::fill, "value"_a, "Put one number everywhere.");
    m.def(
        "block_bytes",
        [](std::size_t layers, std::size_t kv_heads, std::size_t head_dim, const std::string& dtype) {
            return PagedCache::block_bytes(layers, kv_heads, head_dim, find_number(dtype));
        },
        "layers"_a, "kv_heads"_a, "head_dim"_a, "dtype"_a, "The memory of one block in all layers.");
    m.def("write_cache", &write_cache, "cache"_a, "layer"_a, "slots"_a, "keys"_a.noconvert(), "values"_a.noconvert(),
          "Put keys and values [tokens, kv_heads, head_dim] in their slots.");
    m.def("attention", &attention, "query"_a.noconvert(), "cache"_a, "layer"_a, "table"_a, "context"_a,
          "out"_a.noconvert(), "softmax(q k^T) v for the last tokens of one sequence; q is scaled already.");
    nb::class_<BoundModel>(m, "Model")
        .def(nb::init<std::tuple<std::size_t, std::size_t, std::size_t, std::size_t, std::size_t, std::size_t>, float,
                      const std::string&, Raw, const std::vector<LayerTuple>&, std::vector<float>,
                      std::shared_ptr<Weight>, std::vector<float>>(),
             "sizes"_a, "eps"_a, "format"_a, "embedding"_a, "layers"_a, "norm"_a, "head"_a, "frequencies"_a)
        .def_prop_ro("bytes", [](const BoundModel& model) { return model.model().bytes(); })
        .def("forward", &forward, "ids"_a, "lengths"_a, "contexts"_a, "tables"_a, "wanted"_a, "cache"_a, "threads"_a,
             "logits"_a.noconvert());
}
