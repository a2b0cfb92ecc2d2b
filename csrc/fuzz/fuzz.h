#pragma once

#include <cstddef>
#include <cstdint>

// Each *_fuzz.cc defines this entry point of libFuzzer. It returns 0, and ends the program where
// the code under test breaks its contract.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
