#include <utility>

#include "bindings.h"
#include "curve.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "LoadGen and the dispatcher, in C++.";
  m.attr("LOADGEN_VERSION") = SUT_LOADGEN_VERSION;
  m.attr("SOURCES_SHA256") = SUT_SOURCES_SHA256;
  m.def("make_key_pair", [] {
    const sut::curve::KeyPair pair = sut::curve::make_key_pair();
    return std::pair(pair.public_key, pair.secret_key);
  });
  bindings::add_inputs(m);
  bindings::add_counts(m);
  bindings::add_dispatcher(m);
  bindings::add_loadgen_test(m);
  bindings::add_simulation(m);
}
