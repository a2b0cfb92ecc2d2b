"""Replicas of unlike speed in one run. Usage: python -m benchmarks.unlike [--seconds N]

Each system is compared with its replicas alone: with the sum of their Offline tokens/s, and in
Server, by p99 in ms, with the slowest at its share of the load. Loads are parts of that sum, and a
replica's share is its part of it. The first four tables are in virtual time, the last two measured.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from benchmarks import simulation
from benchmarks.simulation import FAST, Columns
from sut import _core
from sut.report.markdown import table
from sut.results.gpus import A30
from sut.run.forecast import stand_in_prompts
from sut.run.simulator import service_model

SYSTEMS = ((1, 1), (1, 2), (1, 4), (1, 1, 2))  # how long a step of each replica takes
MEASURED_SYSTEMS = ((1, 2), (1, 4))
LOADS = (0.5, 0.8, 0.95)
MEASURED_LOADS = (0.8,)
NUM_SAMPLES = 13_368
NUM_TOKENS = 128
MAX_MODEL_LEN = 2668
PROMPTS = stand_in_prompts(NUM_SAMPLES, MAX_MODEL_LEN - NUM_TOKENS)
SERVICE = service_model(msgspec.structs.replace(A30.times, noise=0.05))
A30_S, FAST_S = 3600.0, 600.0

Factors = tuple[int, ...]
Run = Callable[[Factors, str, str], Columns]  # of the scenario's samples with these settings


class Test(NamedTuple):
    run: Run
    num_tokens: int
    seconds: float
    num_offline: Callable[[Factors], int]  # samples of an Offline test

    def offline(self, system: Factors) -> tuple[float, float]:
        """Tokens per second, and for how long the first replica to run dry waits for the last, in
        seconds."""
        samples = self.run(system, "Offline", simulation.offline_conf(self.num_offline(system)))
        last = dict(zip(samples["replica"], samples["completed_ns"], strict=True))
        took_s = (max(last.values()) - min(samples["issued_ns"])) / 1e9
        tail_s = (max(last.values()) - min(last.values())) / 1e9
        return self.num_tokens * len(samples["replica"]) / took_s, tail_s

    def server(self, system: Factors, tokens_per_s: float) -> Columns:
        qps = tokens_per_s / self.num_tokens
        return self.run(system, "Server", simulation.server_conf(qps, self.seconds))

    def p99(self, samples: Columns, replicas: Sequence[int]) -> list[str]:
        """TTFT and TPOT of those replicas' samples, in milliseconds."""
        chosen = [n for n, each in enumerate(samples["replica"]) if each in replicas]
        first, issued, ended = (
            samples[f"{name}_ns"] for name in ("first_token", "issued", "completed")
        )
        ttft = sorted(first[n] - issued[n] for n in chosen)
        tpot = sorted((ended[n] - first[n]) / (self.num_tokens - 1) for n in chosen)
        return [f"{times[int(0.99 * len(chosen))] / 1e6:,.0f}" for times in (ttft, tpot)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unlike", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60, help="length of each measured test (default: 60)"
    )
    seconds = parser.parse_args().seconds
    report(SYSTEMS, LOADS, Test(simulate_a30, NUM_TOKENS, A30_S, lambda _: NUM_SAMPLES))

    num_tokens = simulation.NUM_TOKENS
    (peak, _) = Test(simulate_fast, num_tokens, 0, lambda _: 2000).offline((1,))

    def num_offline(system: Factors) -> int:
        return int(seconds * sum(1 / factor for factor in system) * peak / num_tokens)

    report(MEASURED_SYSTEMS, LOADS, Test(simulate_fast, num_tokens, FAST_S, num_offline))
    report(MEASURED_SYSTEMS, MEASURED_LOADS, Test(measure_fast, num_tokens, seconds, num_offline))


def report(systems: Sequence[Factors], loads: Sequence[float], test: Test) -> None:
    alone = {factor: test.offline((factor,))[0] for system in systems for factor in system}
    rows = [row for system in systems for row in offline_rows(test, system, alone)]
    print(table(["step times", "samples", "tokens/s", "of the sum", "tail, s"], rows), end="\n\n")
    rows = [server_row(test, system, load, alone) for system in systems for load in loads]
    of_both = [f"{name} {of}" for name in ("TTFT", "TPOT") for of in ("all", "slow", "slow alone")]
    print(
        table(["step times", "load", "samples", "to slow", *of_both], rows), end="\n\n", flush=True
    )


def offline_rows(test: Test, system: Factors, alone: Mapping[int, float]) -> list[list[str]]:
    rate, tail_s = test.offline(system)
    of_sum = rate / sum(alone[factor] for factor in system)
    return [
        [
            named(system),
            f"{test.num_offline(system):,}",
            f"{rate:,.0f}",
            f"{of_sum:.1%}",
            f"{tail_s:.1f}",
        ]
    ]


def server_row(test: Test, system: Factors, load: float, alone: Mapping[int, float]) -> list[str]:
    slow = max(system)
    samples = test.server(system, load * sum(alone[factor] for factor in system))
    own = [i for i, each in enumerate(system) if each == slow]
    share = sum(map(list(samples["replica"]).count, own)) / len(samples["replica"])
    p99s = zip(
        test.p99(samples, range(len(system))),
        test.p99(samples, own),
        test.p99(test.server((slow,), load * alone[slow]), [0]),
        strict=True,
    )
    number = f"{len(samples['replica']):,}"
    return [named(system), f"{load:.0%}", number, f"{share:.1%}", *itertools.chain(*p99s)]


def named(system: Factors) -> str:
    return ":".join(map(str, system))


def simulate_a30(system: Factors, scenario: str, user_conf: str) -> Columns:
    return _core.simulate(
        schedule=_core.schedule(
            model=simulation.MODEL, scenario=scenario, user_conf=user_conf, num_samples=NUM_SAMPLES
        ),
        prompt_tokens=PROMPTS,
        output_tokens=[NUM_TOKENS] * NUM_SAMPLES,
        service=SERVICE,
        num_replicas=len(system),
        max_num_seqs=A30.max_num_seqs,
        max_num_batched_tokens=A30.max_num_batched_tokens,
        max_model_len=MAX_MODEL_LEN,
        step_factors=system,
    ).samples()


def fast(system: Factors) -> simulation.System:
    return msgspec.structs.replace(FAST, num_replicas=len(system), step_factors=system)


def simulate_fast(system: Factors, scenario: str, user_conf: str) -> Columns:
    return simulation.simulate(fast(system), simulation.prompt_lengths(), scenario, user_conf)


def measure_fast(system: Factors, scenario: str, user_conf: str) -> Columns:
    with simulation.served(fast(system), simulation.prompt_lengths()) as dispatcher:
        return simulation.measure(dispatcher, scenario, user_conf)


if __name__ == "__main__":
    main()
