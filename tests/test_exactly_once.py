"""The dispatcher against a model: whatever is done to its replicas, and whichever return, each
sample completes once.

A thread of each call of ``generate`` issues samples, as LoadGen does from its own thread. The order
of the calls to LoadGen itself is checked where they are made: csrc/tests/exactly_once_test.cc.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from cli import until
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from replay import MAX_TOKENS, serving

from sut import _core

NUM_SAMPLES = 50
EXAMPLES = int(os.environ.get("SUT_EXACTLY_ONCE", "8"))

Answers = list[list[int]]


def answer_of(sample: int) -> list[int]:
    """The replay engine repeats the prompt."""
    return [sample + n % 3 for n in range(MAX_TOKENS)]


class Machine(RuleBasedStateMachine):
    """``alive`` are the replicas that nothing has happened to since their start or return: one is
    always left."""

    @initialize(num_replicas=st.integers(2, 4), step_us=st.sampled_from([0, 200, 2000]))
    def start(self, num_replicas: int, step_us: int) -> None:
        self.context = ExitStack()
        self.threads = self.context.enter_context(ThreadPoolExecutor())
        self.dispatcher, self.engines = self.context.enter_context(
            serving(NUM_SAMPLES, num_replicas, "--step-base-us", str(step_us))
        )
        self.dispatcher.continue_after_loss(True)
        self.step_us = step_us
        self.alive = set(range(num_replicas))
        self.lost: set[int] = set()
        self.num_lost = self.num_returned = 0
        self.processes = dict(enumerate(self.engines))
        self.stopped: list[subprocess.Popen[bytes]] = []
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
        self.lost.add(replica)
        self.num_lost += 1
        match how:
            case "kill":
                self.processes[replica].kill()
            case "report":
                self.dispatcher.lose(replica, "engine_died", "gone")
            case "stop":
                self.processes[replica].send_signal(signal.SIGSTOP)
                self.dispatcher.lose(replica, "engine_died", "silent")
                self.stopped.append(self.processes[replica])

    @precondition(lambda self: self.stopped)
    @rule()
    def resume(self) -> None:
        """A replica that is lost goes on, and answers what it had."""
        self.stopped.pop().send_signal(signal.SIGCONT)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        """Another engine takes a lost one's place, with samples of its own behind it."""
        replica = data.draw(st.sampled_from(sorted(self.lost)))
        until(lambda: self._is_lost(replica))
        options = "--step-base-us", str(self.step_us)
        warmed, (engine,) = self.context.enter_context(
            serving(NUM_SAMPLES, 1, *options, first_use=_core.Dispatcher.WARM_UP_FIRST_USE)
        )
        assert warmed.generate([1, 2], 0, 60.0) == [answer_of(1), answer_of(2)]
        self.dispatcher.rejoin(replica, warmed)
        self.processes[replica] = engine
        self.lost.remove(replica)
        self.alive.add(replica)
        self.num_returned += 1

    def _is_lost(self, replica: int) -> bool:
        of_replica = [e for e in self.dispatcher.losses() if e.why.replica == replica]
        return bool(of_replica) and of_replica[-1].rejoined_ns is None

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
        losses = self.dispatcher.losses()
        missing = {loss.why.replica for loss in losses if loss.rejoined_ns is None}
        assert missing.isdisjoint(self.alive) and len(losses) <= self.num_lost
        assert len(losses) - len(missing) == self.num_returned

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
