// Every kernel, once per instruction set that it is compiled for.

#pragma once

#include <cstddef>

#define TRACKBED_KERNELS(isa)                                                                                  \
    namespace trackbed::isa {                                                                                  \
    void rms_norm(const float* x, const float* weight, float eps, float* out, std::size_t rows, std::size_t n); \
    }

TRACKBED_KERNELS(generic)
TRACKBED_KERNELS(avx2)
TRACKBED_KERNELS(avx512)
