// A Llama with its weights packed, and its whole pass in one call.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels.h"
#include "weight.h"

namespace trackbed {

struct Shape {
    std::size_t vocab, hidden, intermediate, heads, kv_heads, head_dim;
    float eps;  // of the norms
};

struct Layer {
    std::vector<float> attention_norm, mlp_norm;  // [hidden]
    std::shared_ptr<const Weight> query, key, value, output, gate, up, down;
};

// The embedding as the file stores it, one row a token.
struct Embedding {
    std::string format;
    const std::uint8_t* data;
};

// Keys and values of all layers. Memory is taken by the system when a block is first written.
class PagedCache {
   public:
    PagedCache(std::size_t layers, std::size_t blocks, std::size_t kv_heads, std::size_t head_dim, Number number);

    // Of each layer, where its keys and values are.
    std::vector<Cache> views() const;

    void fill(float value);

    // Of one block in all layers.
    static std::size_t block_bytes(std::size_t layers, std::size_t kv_heads, std::size_t head_dim, Number number);

    // Of keys and values, once all blocks are used.
    std::size_t bytes() const { return blocks * block_bytes(layers, kv_heads, head_dim, number); }

    const std::size_t layers, blocks, kv_heads, head_dim;
    const Number number;

   private:
    Memory keys_, values_, scales_;
};

// The new tokens of one or more sequences, one sequence after another.
struct Tokens {
    std::vector<std::int32_t> ids;
    std::vector<std::size_t> lengths;   // new tokens of each sequence
    std::vector<std::size_t> contexts;  // tokens that each has in the cache once these are in it
    std::vector<std::vector<std::int32_t>> tables;  // blocks of each, in order
    std::vector<std::size_t> wanted;    // places in `ids` whose logits are wanted, ascending
};

// out [rows, m] = x [rows, n] W^T, with x quantised where the weight is.
void multiply_all(const Kernels& kernels, const float* x, std::size_t rows, const Weight& weight, std::size_t threads,
                  float* out);

struct Weights {
    Shape shape;
    Embedding embedding;
    std::vector<Layer> layers;
    std::vector<float> norm;  // [hidden]
    std::shared_ptr<const Weight> head;
    std::vector<float> frequencies;  // [head_dim / 2]
};

class Model {
   public:
    // Throws std::invalid_argument where shapes do not fit one another.
    explicit Model(Weights weights);

    // Logits [wanted, rows of the head]; the cache takes the new keys and values. Throws std::invalid_argument where
    // tokens, blocks or sizes do not fit.
    void forward(const Kernels& kernels, Tokens tokens, const PagedCache& cache, std::size_t threads,
                 float* logits) const;

    const Weights& weights() const { return *weights_; }
    std::size_t bytes() const;

   private:
    // Shared with a pass, which a thread may leave late.
    const std::shared_ptr<const Weights> weights_;
};

}  // namespace trackbed
