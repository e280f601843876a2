#include <nanobind/nanobind.h>
NB_MODULE(_cpu, m) { m.attr("isa") = "generic"; }
