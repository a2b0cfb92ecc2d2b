"""The dispatcher against a model: whatever is done to its replicas, each sample completes once.

A thread of each call of ``generate`` issues samples, as LoadGen does from its own thread. The order
of the calls to LoadGen itself is checked where they are made: csrc/tests/exactly_once_test.cc.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from replay import MAX_TOKENS, serving

NUM_SAMPLES = 50
EXAMPLES = int(os.environ.get("SUT_EXACTLY_ONCE", "8"))

Answers = list[list[int]]


def answer_of(sample: int) -> list[int]:
    """The replay engine repeats the prompt."""
    return [sample + n % 3 for n in range(MAX_TOKENS)]


class Machine(RuleBasedStateMachine):
    """``alive`` are the replicas that nothing has happened to: one is always left."""

    @initialize(num_replicas=st.integers(2, 4), step_us=st.sampled_from([0, 200, 2000]))
    def start(self, num_replicas: int, step_us: int) -> None:
        self.context = ExitStack()
        self.threads = self.context.enter_context(ThreadPoolExecutor())
        self.dispatcher, self.engines = self.context.enter_context(
            serving(NUM_SAMPLES, num_replicas, "--step-base-us", str(step_us))
        )
        self.dispatcher.continue_after_loss(True)
        self.alive = set(range(num_replicas))
        self.stopped: set[int] = set()
        self.calls: list[tuple[list[int], Future[Answers]]] = []
        self.issued: Counter[int] = Counter()

    @rule(samples=st.lists(st.integers(0, NUM_SAMPLES - 1), min_size=1, max_size=200))
    def issue(self, samples: list[int]) -> None:
        self.calls.append(
            (samples, self.threads.submit(self.dispatcher.generate, samples, -1, 120.0))
        )
        self.issued.update(samples)

    @rule(data=st.data(), credit=st.integers(1, 64))
    def set_credit(self, data: st.DataObject, credit: int) -> None:
        self.dispatcher.set_credit(data.draw(st.sampled_from(sorted(self.alive))), credit)

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data(), how=st.sampled_from(["kill", "report", "stop"]))
    def lose(self, data: st.DataObject, how: str) -> None:
        replica = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.remove(replica)
        match how:
            case "kill":
                self.engines[replica].kill()
            case "report":
                self.dispatcher.lose(replica, "engine_died", "gone")
            case "stop":
                self.engines[replica].send_signal(signal.SIGSTOP)
                self.dispatcher.lose(replica, "engine_died", "silent")
                self.stopped.add(replica)

    @precondition(lambda self: self.stopped)
    @rule()
    def resume(self) -> None:
        """A replica that is lost goes on, and answers what it had."""
        self.engines[self.stopped.pop()].send_signal(signal.SIGCONT)

    @rule()
    def finish(self) -> None:
        for samples, call in self.calls:
            assert call.result() == [answer_of(sample) for sample in samples]
        self.calls.clear()
        stats = self.dispatcher.stats()
        assert stats.issued == stats.completed == stats.admitted == sum(self.issued.values())
        assert stats.first_tokens == stats.completed and stats.queued == stats.failed == 0
        columns = self.dispatcher.samples()
        assert Counter(columns["sample_index"].tolist()) == self.issued
        times = (columns[each].tolist() for each in TIMES)
        assert all(list(row) == sorted(row) for row in zip(*times, strict=True))
        assert {loss.why.replica for loss in self.dispatcher.losses()}.isdisjoint(self.alive)

    @invariant()
    def has_not_failed(self) -> None:
        assert self.dispatcher.failure is None

    def teardown(self) -> None:
        if hasattr(self, "context"):
            try:
                self.finish()
            finally:
                self.context.close()


TIMES = ("issued_ns", "admitted_ns", "first_token_ns", "completed_ns")

TestExactlyOnce = Machine.TestCase
TestExactlyOnce.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
