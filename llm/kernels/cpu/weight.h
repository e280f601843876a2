// A weight matrix as the kernels want it: in panels of 32 outputs, whatever the file stores.
//
// A panel holds 32 neighbouring outputs (rows of the matrix), and of them, step by step along the inputs
// (columns), what one instruction multiplies: four neighbouring codes of each output, or one number of each.
//
//   nibbles   codes [panels][columns / 4][16][4] bytes: outputs 0 to 15 in the low halves, 16 to 31 in the high
//   bytes     codes [panels][columns / 4][32][4]
//   float32, float16     [panels][columns][32]
//   bfloat16             [panels][columns / 2][32][2]
//
// A coded weight is factor[output] * (scale[group, output] * (code - zero) + minimum[group, output]). Groups are
// 16 or 32 columns. `factor` is a power of two, so that scales fit float16 whatever their size. Rows and columns
// that fill up the last panel and the last group are zero.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

namespace trackbed {

constexpr std::size_t PANEL = 32;  // outputs
constexpr std::size_t GROUP = 32;  // activations that share a scale; and columns are padded to a multiple of it

enum class Kind { nibbles, bytes, float32, float16, bfloat16 };

// Memory on its own cache lines, and in huge pages where it is large and the system has them.
class Memory {
   public:
    Memory() = default;
    explicit Memory(std::size_t bytes);

    template <class T>
    T* as() const {
        return static_cast<T*>(static_cast<void*>(start_.get()));
    }
    std::size_t size() const { return size_; }

   private:
    struct Free {
        void operator()(unsigned char* p) const { std::free(p); }
    };
    std::unique_ptr<unsigned char, Free> start_;
    std::size_t size_ = 0;
};

struct Weight {
    Kind kind;
    std::size_t rows, columns;       // as in the file
    std::size_t panels, width;       // padded: panels of 32 rows, and columns
    std::size_t group = GROUP;       // columns that share a scale: 16 or 32
    std::int32_t zero = 0;           // the code of weight 0, where there is no minimum
    Memory codes;                    // or numbers
    Memory scales;                   // float16 [panels][width / group][32]
    Memory minimums;                 // the same, or nothing
    Memory factors;                  // float32 [panels * 32]

    std::size_t groups() const { return width / group; }
    bool coded() const { return kind == Kind::nibbles || kind == Kind::bytes; }
    // Bytes of codes or numbers that a panel takes.
    std::size_t panel_bytes() const {
        return kind == Kind::nibbles ? width * PANEL / 2 : width * PANEL * (kind == Kind::bytes ? 1 : kind == Kind::float32 ? 4 : 2);
    }
    std::size_t bytes() const { return codes.size() + scales.size() + minimums.size() + factors.size(); }
};

// What becomes of a file's numbers and codes: kept as they are, or numbers of one kind; or numbers become codes of 8 or
// 4 bits, with a scale for each group of 32 or for each row, and codes are kept.
enum class Target { stored, float32, bfloat16, int8, int4, int8_rows, int4_rows };

// Packs a matrix as a file stores it: `format` is GGUF's name, and `data` holds `rows` rows of `columns` weights.
//
// With `head_dim` the rows of each head, which llama.cpp's converter interleaves (0, d/2, 1, d/2 + 1, ...), are put
// back in order. Throws std::invalid_argument where the format is not known or the sizes do not fit it.
std::shared_ptr<Weight> pack(const std::string& format, const std::uint8_t* data, std::size_t size, std::size_t rows,
                             std::size_t columns, Target target, std::size_t head_dim, std::size_t threads);

// Numbers as codes, in blocks of GGUF's Q8_0 or Q4_1: what `pack` makes of them with such a target. The last block of a
// row is filled up with zeros. `blocks` holds encoded_bytes().
void encode(const std::string& format, const std::uint8_t* data, std::size_t rows, std::size_t columns, Target target,
            std::size_t threads, std::uint8_t* blocks);
std::size_t encoded_bytes(std::size_t rows, std::size_t columns, Target target);

// The bytes of a matrix in a file. Throws std::invalid_argument as `pack` does.
std::size_t matrix_bytes(const std::string& format, std::size_t rows, std::size_t columns);

// Floats of some rows of a matrix as a file stores it, for an embedding that is looked up: [count, columns].
void unpack_rows(const std::string& format, const std::uint8_t* data, std::size_t columns, const std::int32_t* rows,
                 std::size_t count, float* out);

}  // namespace trackbed
