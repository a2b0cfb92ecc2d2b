#pragma once

#include <cstdio>
#include <cstdlib>

// Ends the test program with the place and the words of a condition that does not hold; unlike
// assert(), in every build type.
#define CHECK(condition)                                                          \
  do {                                                                            \
    if (!(condition)) {                                                           \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                               \
    }                                                                             \
  } while (false)
