// The bindings of all native kernels, and the choice of the instruction set they run with.
//
// Arguments are checked by their types here: dtype, rank, device and layout. The GIL is released while a
// kernel runs.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace nb = nanobind;
using namespace nb::literals;

using Matrix = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ConstMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ConstVector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void bind_limits(nb::module_& m);  // limits.cpp

namespace {

struct Kernels {
    std::string isa;
    decltype(&trackbed::generic::rms_norm) rms_norm;
};

// Those of the instruction sets that this processor runs, best first.
std::vector<Kernels> find_available() {
    std::vector<Kernels> found;
#if defined(TRACKBED_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) found.push_back({"avx512", trackbed::avx512::rms_norm});
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found.push_back({"avx2", trackbed::avx2::rms_norm});
#endif
    found.push_back({"generic", trackbed::generic::rms_norm});
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
        known += (known.empty() ? "" : ", ") + kernels.isa;
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

}  // namespace

NB_MODULE(_cpu, m) {
    m.doc() = "Native kernels for CPUs.";
    bind_limits(m);
    m.def(
        "available",
        [] {
            std::vector<std::string> names;
            for (const Kernels& kernels : available) names.push_back(kernels.isa);
            return names;
        },
        "The instruction sets that this processor runs, best first.");
    m.def("isa", [] { return chosen->isa; }, "The instruction set in use.");
    m.def("use", &use, "isa"_a, "Use this instruction set from now on. Raises ValueError where there is none.");
    m.def("rms_norm", &rms_norm, "x"_a.noconvert(), "weight"_a.noconvert(), "eps"_a, "out"_a.noconvert(),
          "out = x / sqrt(mean(x^2) + eps) * weight, for float32 [rows, n] and [n].");
}
