/* What the library is, and whether this processor has the instructions that everything here is made of. */

#ifndef PARKWAY_SOURCES
#error "compiled by tools/build_kernels.py, which says from which sources"
#endif

const char *parkway_sources(void) { return PARKWAY_SOURCES; }

int parkway_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}
