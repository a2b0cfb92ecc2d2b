#include "bindings.h"
#include "stats.h"

namespace bindings {

using namespace pybind11::literals;

py::memoryview as_memoryview(const std::vector<std::int64_t>& column) {
  const py::bytes bytes(reinterpret_cast<const char*>(column.data()), 8 * column.size());
  return py::memoryview(bytes).attr("cast")("q");
}

py::dict samples_as_dict(sut::SampleColumns columns) {
  const auto take = [](std::vector<std::int64_t>& column) {
    return as_memoryview(std::exchange(column, {}));
  };
  return py::dict("sample_index"_a = take(columns.sample_index),
                  "replica"_a = take(columns.replica),
                  "prompt_tokens"_a = take(columns.prompt_tokens),
                  "output_tokens"_a = take(columns.output_tokens),
                  "issued_ns"_a = take(columns.issued_ns),
                  "admitted_ns"_a = take(columns.admitted_ns),
                  "first_token_ns"_a = take(columns.first_token_ns),
                  "completed_ns"_a = take(columns.completed_ns));
}

}  // namespace bindings
