// From what a file stores to panels, 32 rows at a time, so that no more than a panel is ever unpacked.

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "formats.h"
#include "pool.h"
#include "weight.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace trackbed {

namespace {

constexpr std::size_t LINE = 64;          // bytes of a cache line
constexpr std::size_t HUGE_PAGE = 2ul << 20;  // bytes of a huge page
constexpr std::size_t MOST = std::size_t{1} << 40;  // rows or columns: no product of two sizes overflows below

constexpr std::size_t round_up(std::size_t value, std::size_t unit) { return (value + unit - 1) / unit * unit; }

// The format that numbers become with such a target, if any.
const char* codes_of(Target target) {
    switch (target) {
        case Target::int8:
        case Target::int8_rows: return "Q8_0";
        case Target::int4:
        case Target::int4_rows: return "Q4_1";
        default: return nullptr;
    }
}

// The row of the file for our row: of each head llama.cpp's converter has taken both halves in turns.
std::size_t row_in_file(std::size_t row, std::size_t head_dim) {
    if (head_dim == 0) return row;
    const std::size_t head = row / head_dim, place = row % head_dim, half = head_dim / 2;
    return head * head_dim + place % half * 2 + place / half;
}

std::size_t row_bytes(const Format& format, std::size_t columns) { return columns / format.weights * format.bytes; }

void check_sizes(const Format& format, std::size_t rows, std::size_t columns) {
    if (rows == 0 || columns == 0 || rows > MOST || columns > MOST || columns % format.weights)
        throw std::invalid_argument(std::to_string(rows) + " rows of " + std::to_string(columns) + " weights do not fit " +
                                    format.name + ", in blocks of " + std::to_string(format.weights));
}

// 32 rows, unpacked as far as codes: as many as `width` columns of each, beyond the matrix zero.
struct Unpacked {
    std::vector<std::uint8_t> codes;      // [32][width]
    std::vector<float> scales, minimums;  // [32][groups]
};

void unpack(const Format& format, const std::uint8_t* data, const Weight& weight, std::size_t panel,
            std::size_t head_dim, Unpacked& into) {
    const std::size_t groups = weight.groups(), of_block = format.weights / format.group;
    into.codes.assign(PANEL * weight.width, 0);
    into.scales.assign(PANEL * groups, 0.0f);
    into.minimums.assign(PANEL * groups, 0.0f);
    for (std::size_t i = 0; i < PANEL && panel * PANEL + i < weight.rows; ++i) {
        const std::uint8_t* block = data + row_in_file(panel * PANEL + i, head_dim) * row_bytes(format, weight.columns);
        std::uint8_t* codes = &into.codes[i * weight.width];
        float *scales = &into.scales[i * groups], *minimums = &into.minimums[i * groups];
        for (std::size_t at = 0; at < weight.columns; at += format.weights, block += format.bytes) {
            format.decode(block, codes, scales, minimums);
            codes += format.weights;
            scales += of_block;
            minimums += of_block;
        }
    }
}

// Nibbles: four neighbouring codes of output o beside those of o + 16.
void write_nibbles(const Unpacked& from, std::size_t width, std::uint8_t* out) {
    for (std::size_t step = 0; step < width / 4; ++step)
        for (std::size_t o = 0; o < PANEL / 2; ++o, out += 4) {
            std::uint32_t low, high;
            std::memcpy(&low, &from.codes[o * width + step * 4], 4);
            std::memcpy(&high, &from.codes[(o + PANEL / 2) * width + step * 4], 4);
            low |= high << 4;
            std::memcpy(out, &low, 4);
        }
}

void write_bytes(const Unpacked& from, std::size_t width, std::uint8_t* out) {
    for (std::size_t step = 0; step < width / 4; ++step)
        for (std::size_t o = 0; o < PANEL; ++o, out += 4) std::memcpy(out, &from.codes[o * width + step * 4], 4);
}

// The power of two that brings the largest of an output's scales to between 1/2 and 1.
float find_factor(const float* scales, const float* minimums, std::size_t groups) {
    float largest = 0.0f;
    for (std::size_t g = 0; g < groups; ++g)
        largest = std::fmax(largest, std::fmax(std::fabs(scales[g]), std::fabs(minimums[g])));
    int power = 0;
    if (std::isfinite(largest)) std::frexp(largest, &power);
    return std::ldexp(1.0f, power);
}

void write_panel(const Unpacked& from, Weight& weight, std::size_t panel) {
    const std::size_t groups = weight.groups();
    std::uint8_t* codes = weight.codes.as<std::uint8_t>() + panel * weight.panel_bytes();
    (weight.kind == Kind::nibbles ? write_nibbles : write_bytes)(from, weight.width, codes);
    std::uint16_t* scales = weight.scales.as<std::uint16_t>() + panel * groups * PANEL;
    std::uint16_t* minimums = weight.minimums.size() ? weight.minimums.as<std::uint16_t>() + panel * groups * PANEL : nullptr;
    for (std::size_t o = 0; o < PANEL; ++o) {
        const float factor = find_factor(&from.scales[o * groups], &from.minimums[o * groups], groups);
        weight.factors.as<float>()[panel * PANEL + o] = factor;
        for (std::size_t g = 0; g < groups; ++g) {
            scales[g * PANEL + o] = float_to_half(from.scales[o * groups + g] / factor);
            if (minimums) minimums[g * PANEL + o] = float_to_half(from.minimums[o * groups + g] / factor);
        }
    }
}

// One row as floats.
void unpack_row(const Format& format, const std::uint8_t* row, std::size_t columns, float* out) {
    switch (format.kind) {
        case Kind::float32:
            std::memcpy(out, row, columns * sizeof(float));
            return;
        case Kind::float16:
        case Kind::bfloat16:
            for (std::size_t i = 0; i < columns; ++i) {
                std::uint16_t half;
                std::memcpy(&half, row + 2 * i, sizeof half);
                const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
                if (format.kind == Kind::float16) out[i] = half_to_float(half);
                else std::memcpy(out + i, &bits, sizeof bits);
            }
            return;
        default:
            break;
    }
    std::uint8_t codes[256];
    float scales[16], minimums[16] = {};
    for (std::size_t at = 0; at < columns; at += format.weights, row += format.bytes) {
        format.decode(row, codes, scales, minimums);
        for (std::size_t i = 0; i < format.weights; ++i) {
            const std::size_t g = i / format.group;
            out[at + i] = scales[g] * static_cast<float>(static_cast<int>(codes[i]) - format.zero) + minimums[g];
        }
    }
}

std::uint16_t float_to_bfloat16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);  // NaN
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void write_numbers(const Format& format, const std::uint8_t* data, Weight& weight, std::size_t panel,
                   std::size_t head_dim, std::vector<float>& row) {
    row.assign(weight.width, 0.0f);
    unsigned char* start = weight.codes.as<unsigned char>() + panel * weight.panel_bytes();
    for (std::size_t o = 0; o < PANEL; ++o) {
        const std::size_t ours = panel * PANEL + o;
        if (ours < weight.rows)
            unpack_row(format, data + row_in_file(ours, head_dim) * row_bytes(format, weight.columns), weight.columns,
                       row.data());
        else
            std::fill(row.begin(), row.end(), 0.0f);
        std::uint16_t* halves = reinterpret_cast<std::uint16_t*>(start);
        for (std::size_t k = 0; k < weight.width; ++k) {
            if (weight.kind == Kind::float32) reinterpret_cast<float*>(start)[k * PANEL + o] = row[k];
            else if (weight.kind == Kind::float16) halves[k * PANEL + o] = float_to_half(row[k]);
            else halves[k / 2 * 2 * PANEL + o * 2 + k % 2] = float_to_bfloat16(row[k]);
        }
    }
}

}  // namespace

Memory::Memory(std::size_t bytes) : size_(bytes) {
    const std::size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : LINE;
    start_.reset(static_cast<unsigned char*>(std::aligned_alloc(unit, round_up(bytes ? bytes : 1, unit))));
    if (!start_) throw std::bad_alloc();
#if defined(__linux__)
    if (unit == HUGE_PAGE) madvise(start_.get(), round_up(bytes, unit), MADV_HUGEPAGE);
#endif
}

std::shared_ptr<Weight> pack(const std::string& name, const std::uint8_t* data, std::size_t size, std::size_t rows,
                             std::size_t columns, Target target, std::size_t head_dim, std::size_t threads) {
    const Format& format = find_format(name);
    check_sizes(format, rows, columns);
    if (head_dim && (head_dim % 2 || rows % head_dim))
        throw std::invalid_argument(std::to_string(rows) + " rows are no whole number of heads of " +
                                    std::to_string(head_dim));
    if (size / row_bytes(format, columns) != rows || size % row_bytes(format, columns))
        throw std::invalid_argument(std::to_string(size) + " bytes are not " + std::to_string(rows) + " rows of " +
                                    std::to_string(columns) + " weights in " + name);

    if (codes_of(target) && !format.decode) {
        const Memory blocks(encoded_bytes(rows, columns, target));
        encode(name, data, rows, columns, target, threads, blocks.as<std::uint8_t>());
        auto coded = pack(codes_of(target), blocks.as<std::uint8_t>(), blocks.size(), rows, round_up(columns, GROUP),
                          Target::stored, head_dim, threads);
        coded->columns = columns;
        return coded;
    }
    auto weight = std::make_shared<Weight>();
    weight->kind = target == Target::float32    ? Kind::float32
                   : target == Target::bfloat16 ? Kind::bfloat16
                                                : format.kind;
    weight->rows = rows;
    weight->columns = columns;
    weight->panels = round_up(rows, PANEL) / PANEL;
    weight->width = round_up(columns, GROUP);
    weight->codes = Memory(weight->panels * weight->panel_bytes());
    if (weight->coded()) {
        weight->group = format.group;
        weight->zero = format.zero;
        const std::size_t numbers = weight->panels * weight->groups() * PANEL;
        weight->scales = Memory(numbers * sizeof(std::uint16_t));
        if (format.minimums) weight->minimums = Memory(numbers * sizeof(std::uint16_t));
        weight->factors = Memory(weight->panels * PANEL * sizeof(float));
    }
    pool().each(threads, weight->panels, [&](std::size_t panel) {
        if (weight->coded()) {
            thread_local Unpacked unpacked;
            unpack(format, data, *weight, panel, head_dim, unpacked);
            write_panel(unpacked, *weight, panel);
        } else {
            thread_local std::vector<float> row;
            write_numbers(format, data, *weight, panel, head_dim, row);
        }
    });
    return weight;
}

std::size_t matrix_bytes(const std::string& name, std::size_t rows, std::size_t columns) {
    const Format& format = find_format(name);
    check_sizes(format, rows, columns);
    return rows * row_bytes(format, columns);
}

std::size_t encoded_bytes(std::size_t rows, std::size_t columns, Target target) {
    return rows * row_bytes(find_format(codes_of(target)), round_up(columns, GROUP));
}

void encode(const std::string& name, const std::uint8_t* data, std::size_t rows, std::size_t columns, Target target,
            std::size_t threads, std::uint8_t* blocks) {
    const Format& format = find_format(name);
    check_sizes(format, rows, columns);
    const bool one_scale = target == Target::int8_rows || target == Target::int4_rows;
    const auto encode_row = target == Target::int8 || target == Target::int8_rows ? encode_q8_0 : encode_q4_1;
    const std::size_t size = encoded_bytes(1, columns, target);
    pool().each(threads, round_up(rows, PANEL) / PANEL, [&](std::size_t panel) {
        std::vector<float> row(columns);
        for (std::size_t i = panel * PANEL; i < std::min(rows, (panel + 1) * PANEL); ++i) {
            unpack_row(format, data + i * row_bytes(format, columns), columns, row.data());
            encode_row(row.data(), columns, one_scale, blocks + i * size);
        }
    });
}

void unpack_rows(const std::string& name, const std::uint8_t* data, std::size_t columns, const std::int32_t* rows,
                 std::size_t count, float* out) {
    const Format& format = find_format(name);
    for (std::size_t i = 0; i < count; ++i)
        unpack_row(format, data + static_cast<std::size_t>(rows[i]) * row_bytes(format, columns), columns,
                   out + i * columns);
}

}  // namespace trackbed
