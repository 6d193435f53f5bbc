# libopus as its own `configure` builds it on x86-64 and aarch64: logarithms and powers of two by polynomials in single precision.
# Its CMake files leave that off. Read for native builds only (HOST_ in config.toml); a cross build goes without.
set(OPUS_FLOAT_APPROX ON CACHE BOOL "")
