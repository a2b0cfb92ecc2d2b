#include "bindings.h"
#include "stats.h"

namespace bindings {

using namespace pybind11::literals;

py::memoryview as_memoryview(const std::vector<std::int64_t>& column) {
  const py::bytes bytes(reinterpret_cast<const char*>(column.data()), 8 * column.size());
  return py::memoryview(bytes).attr("cast")("q");
}

py::dict samples_as_dict(const sut::SampleColumns& columns) {
  return py::dict("sample_index"_a = as_memoryview(columns.sample_index),
                  "replica"_a = as_memoryview(columns.replica),
                  "prompt_tokens"_a = as_memoryview(columns.prompt_tokens),
                  "output_tokens"_a = as_memoryview(columns.output_tokens),
                  "issued_ns"_a = as_memoryview(columns.issued_ns),
                  "admitted_ns"_a = as_memoryview(columns.admitted_ns),
                  "first_token_ns"_a = as_memoryview(columns.first_token_ns),
                  "completed_ns"_a = as_memoryview(columns.completed_ns));
}

}  // namespace bindings
