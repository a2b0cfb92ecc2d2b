"""What to change where replicas do not divide their nodes, or ranks do not divide the model. Pure.

Each change in a hint passes all of these checks together: the placement, the heads of the model and
the memory of the GPUs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec

from sut.errors import Errors
from sut.plan import fit
from sut.plan.benchmark import Engine
from sut.plan.placement import Change, place
from sut.plan.site import Device, Site
from sut.values import Struct

_MAX_TRIED = 64  # sizes of a model whose heads are unknown


class Alternatives(Struct, frozen=True, kw_only=True):
    """Those of one run. ``size`` is None where the model is not checked; for the others see
    :func:`sut.plan.placement.place`."""

    size: fit.ModelSize | None
    engine: Engine
    site: Site
    nodes: str
    usable_cpus: Sequence[int]

    def hint(self, *preferred: Change) -> str:
        """The first of ``preferred`` that works, else the tensor parallel sizes that do, else the
        first other change that does."""
        for change in preferred:
            if self._works(change):
                return change.options()
        sizes = [n for n in self._sizes() if self._works(Change(tensor_parallel_size=n))]
        heads_unknown = self.size is None or not self.size.num_heads
        which = " that divides the model's attention heads" * (
            heads_unknown and self.site.check_fit and sizes != [1]
        )
        if len(sizes) == 1:
            return Change(tensor_parallel_size=sizes[0]).options() + which.replace("that", "if it")
        if sizes:
            values = ", ".join(map(str, sizes))
            return f"--set engine.tensor_parallel_size=N with N in {values}{which}"
        none = "no engine.tensor_parallel_size suits the model and these nodes"
        found = next(filter(self._works, self._others()), None)
        if found is None:
            return f"{none}; choose others: --nodes, --set engine.pipeline_parallel_size=N"
        return f"{none}; instead: {found.options()}"

    def _works(self, change: Change) -> bool:
        engine, site = self.engine, self.site
        if change.tensor_parallel_size is not None:
            tp = change.tensor_parallel_size
            engine = msgspec.structs.replace(engine, tensor_parallel_size=tp)
        if change.num_replicas is not None:
            site = msgspec.structs.replace(site, num_replicas=change.num_replicas)
        nodes = self.nodes if change.nodes is None else str(change.nodes)
        size, errors = self.size, Errors()
        if size is None:
            placed = place(engine, site, nodes, self.usable_cpus, errors)
            return not errors
        placed = place(
            engine, site, nodes, self.usable_cpus, errors, lambda n: fit.fits(size, engine, site, n)
        )
        return not errors and fit.suits(size, engine, site, placed.site_nodes)

    def _sizes(self) -> Sequence[int]:
        """The tensor parallel sizes to try, ascending."""
        divisors = fit.divisors(self.size) if self.size and self.site.check_fit else []
        return divisors or range(1, min(self._num_places(), _MAX_TRIED) + 1)

    def _others(self) -> Iterator[Change]:
        """Another number of replicas, of these ranks or of others; then another number of nodes."""
        now = self.engine.tensor_parallel_size
        sizes = [now, *(n for n in self._sizes() if n != now)]
        for tp in sizes:
            most = self._num_places() // (tp * self.engine.pipeline_parallel_size)
            numbers = range(1, most + 1)  # on the CPU, each more is more work for the same cores
            for number in reversed(numbers) if self.site.device is Device.CUDA else numbers:
                yield Change(tensor_parallel_size=tp if tp != now else None, num_replicas=number)
        if self.size is not None:
            for number, tp in itertools.product(range(1, len(self.site.nodes) + 1), sizes):
                yield Change(tensor_parallel_size=tp if tp != now else None, nodes=number)

    def _num_places(self) -> int:
        """At most this many ranks run on the site."""
        if self.site.device is Device.CUDA:
            return sum(node.gpus for node in self.site.nodes)
        local = len(self.site.cpu.cpus or self.usable_cpus) if self.site.slurm is None else 0
        return local or sum(max(1, len(node.cpus)) for node in self.site.nodes)
