#pragma once

#include <cstdio>
#include <cstdlib>

// Ends the test program with the place and text of a failed condition; unlike assert(), in every
// build type.
#define CHECK(condition)                                                          \
  do {                                                                            \
    if (!(condition)) {                                                           \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                               \
    }                                                                             \
  } while (false)
