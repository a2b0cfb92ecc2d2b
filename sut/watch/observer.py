"""The state of a run, read from its folder and from Slurm. Nothing is written."""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from sut.cluster import claims, liveness
from sut.cluster.liveness import Liveness, Word
from sut.errors import InputError
from sut.launch import notices
from sut.plan.benchmark import AUTO
from sut.plan.hostlist import HostlistError, expand
from sut.plan.placement import on_nodes
from sut.plan.plan import Plan, Test, load_plan
from sut.results import attempts, diagnosis, mllog, record, usual
from sut.results.goal import Goal, goal_of
from sut.results.progress import Line, Reader
from sut.rundir import RunDir
from sut.units import quantity
from sut.watch import notify
from sut.watch.state import PhaseState, RunState, Shown, left_s, measured, with_result

WINDOW_LINES = 15  # about as many seconds: the window of current rates
SILENT_S = 60.0  # without progress or an answer, after which what was known counts as unknown
REPORTING = "writing the report"
NOTIFYING = f"waiting for the --notify command, at most {quantity(notify.LIMIT_S, 's')}"


class Observer:
    """Reads one run repeatedly. ``ask_slurm_s`` is the time between two queries for its job: every
    user shares slurmctld. Raises InputError if its plan cannot be read."""

    def __init__(self, run: RunDir, ask_slurm_s: float = 10.0) -> None:
        self.run = run
        self._ask_slurm_s = ask_slurm_s
        self.plan = load_plan(run.plan)
        self._reader = Reader(run.progress)
        self._lines: dict[str, deque[Line]] = {}  # by phase, the last ones
        self._first: Line | None = None  # of this attempt
        self._last: Line | None = None
        self._stage_began_s = self._step_began_s = 0.0  # of the last line
        self._chosen_qps: float | None = None
        self._goals: dict[str, tuple[int, Goal | None]] = {}  # by the size of LoadGen's log
        self._liveness = Liveness(state="unknown")
        self._asked = self._answered = float("-inf")  # of time.monotonic()

    @property
    def pid(self) -> int | None:
        """The run's process once it is known. SIGTERM to it cancels the run."""
        return self._first.pid if self._first else None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of the run is left that could still write its report."""
        return self._liveness.state == "ended"

    @functools.cached_property
    def _usual(self) -> dict[str, float]:
        return usual.step_times(self.run.root.parent, self.plan, self.run.root.name)

    def look(self) -> RunState:
        new = self._reader.read()
        for line in new:
            self._take(line)
        self._ask()
        result = self._record()
        state = self._state(result)
        over = state in ("finished", "lost")
        phases = tuple(self._phase(test.name, result, over) for test in self.plan.tests)
        ending = self._ending() if state == "finished" else ""
        silent_s = None if over and not ending else _age_s(self.run.progress)
        stage, stage_s, step_s = self._stage(state, ending, silent_s)
        return RunState(
            run=str(self.run),
            benchmark=self.plan.benchmark,
            scenario=self.plan.scenario,
            mode=self.plan.mode,
            preset=self.plan.preset,
            target_qps=self._target_qps(phases),
            site=self.plan.site,
            state=state,
            job=self._liveness.job,
            why=self._why(state),
            ending=ending,
            shown=self._shown() if state == "lost" else None,
            t_s=self._last.t_s if self._last else None,
            step=self._last.step if self._last else "",
            silent_s=silent_s,
            unheard_s=self._unheard_s(),
            stage=stage,
            stage_s=stage_s,
            step_s=step_s,
            usual_s=self._usual.get(stage) if stage else None,
            left_s=left_s(self.plan, phases, self._chosen_qps) if state == "running" else None,
            phases=phases,
            verdict=result.verdict if result and state == "finished" else None,
            status=result.status if result and state == "finished" else None,
            exit_code=result.exit_code if result and state == "finished" else None,
            failure=result.failure.message if result and result.failure and over else None,
        )

    def _record(self) -> record.Record | None:
        """None without one, and for a damaged one that a live run will replace. Raises
        InputError."""
        try:
            return record.read(self.run.record) if self.run.record.is_file() else None
        except InputError:
            if self._liveness.state == "active":
                return None
            raise

    def _target_qps(self, phases: Sequence[PhaseState]) -> float | None:
        """The load of the running test; of a sweep none between its tests."""
        if self.plan.scenario.loadgen != "Server":
            return None
        if self.plan.sweep:
            running = (Test.named(each.name) for each in phases if each.state == "running")
            return next(map(self.plan.chosen_qps, running), None)
        planned = self.plan.loadgen_settings.target_qps
        return self._chosen_qps if planned == AUTO else float(planned) if planned else None

    def _take(self, line: Line) -> None:
        if line.pid is not None:  # a new attempt
            self._first = line
            self._lines.clear()
        if line.phase is not None:
            window = self._lines.setdefault(line.phase, deque(maxlen=WINDOW_LINES))
            if window and line.elapsed_s < window[-1].elapsed_s:  # a search's next trial
                window.clear()
            window.append(line)
        if self._last is None or line.pid is not None or line.stage != self._last.stage:
            self._stage_began_s = line.t_s
        if self._last is None or line.pid is not None or line.step != self._last.step:
            self._step_began_s = line.t_s
        self._last = line
        self._chosen_qps = line.target_qps or self._chosen_qps
        if self._liveness.state == "pending":
            self._asked = float("-inf")  # the job has started: its state is out of date

    def _stage(
        self, state: str, ending: str, silent_s: float | None
    ) -> tuple[str, float | None, float | None]:
        """The record's step that is going on outside of a phase, and the times since it and its
        current part began."""
        last = self._last
        going = state in ("starting", "running") or ending == REPORTING
        if not going or (last is not None and last.phase is not None):
            return "", None, None
        if last is None:  # the process of a run on this machine is starting
            age_s = _age_s(self.run.plan) if self.plan.slurm is None else None
            return ("", None, None) if age_s is None else (record.START, age_s, age_s)
        if not last.stage:
            return "", None, None
        now_s = last.t_s + (silent_s or 0.0)
        return (
            last.stage,
            round(now_s - self._stage_began_s, 1),
            round(now_s - self._step_began_s, 1),
        )

    def _ask(self) -> None:
        """Look for the run's job: each time on this machine, in Slurm every few seconds."""
        if self.plan.slurm is not None and time.monotonic() - self._asked < self._ask_slurm_s:
            return
        found = liveness.of_run(self.run, self.plan)
        now = time.monotonic()
        if found.state != "submitting":  # its job appears any moment
            self._asked = now
        if found.state != "unknown":
            self._answered = now
        elif self._liveness.state != "unknown" and now - self._answered < SILENT_S:
            return  # a few queries that Slurm does not answer change nothing
        self._liveness = found

    def _unheard_s(self) -> float:
        files = (self.run.record, self.run.progress, self.run.plan)
        ages = [age for path in files if (age := _age_s(path)) is not None]
        return min([*ages, time.monotonic() - self._answered])

    def _state(self, result: record.Record | None) -> Word:
        if result is not None and result.status == "completed":  # final
            return "finished"
        live = self._liveness.state
        if live == "pending":
            return "pending"
        final = result is not None and not result.interim
        if final and _newer(self.run.record, self.run.progress):
            begins = claims.begins(self.run, active=live == "active")
            return "starting" if begins else "finished"
        if live == "active" or self._is_here() is True:
            return "running" if self._lines else "starting"
        if live == "ended" or self._is_here() is False:
            return "finished" if final else "lost"
        if live == "unknown":
            age_s = _age_s(self.run.progress)
            if age_s is None or age_s >= SILENT_S:
                return "finished" if final else "unknown"
        return "running" if self._lines else "starting"

    def _ending(self) -> str:
        """What a run that has a record still does."""
        if self._liveness.state != "active" and not self._is_here():
            return ""
        if not attempts.has_page(self.run):
            return REPORTING
        with contextlib.suppress(InputError):
            return NOTIFYING if notices.read(self.run).command else ""
        return ""

    def _why(self, state: str) -> str:
        """Why there is no record of a run that is lost or unknown."""
        if state not in ("lost", "unknown"):
            return ""
        return self._liveness.why or "its process has ended"

    def _shown(self) -> Shown | None:
        logs = self.run.job_logs()
        if not logs:
            return None
        shown = diagnosis.of(*logs)
        cause, hint = (shown.known.cause, shown.known.remedy) if shown.known else ("", "")
        return Shown(log=str(shown.log), lines=shown.lines, cause=cause, hint=hint)

    def _is_here(self) -> bool | None:
        """Whether the run's process lives; None if it is not a known process of this machine."""
        first = self._first
        if first is None or first.pid is None or first.host != socket.gethostname():
            return None
        if self.plan.container is not None:  # its process ids may differ from the host's
            return None
        return liveness.is_running(first.pid)

    def _phase(self, name: str, result: record.Record | None, over: bool) -> PhaseState:
        judged = next((p for p in result.phases if p.name == name), None) if result else None
        lines = self._lines.get(name)
        if judged is not None:
            reasons = tuple(reason.text for reason in judged.verdict.reasons)
            shell = PhaseState(
                name=name, state="done", verdict=judged.verdict.verdict, reasons=reasons
            )
        elif lines is None:
            return PhaseState(name=name, state="not started" if over else "waiting")
        elif over:
            shell = PhaseState(name=name, state="stopped")
        elif self._last is not None and self._last.phase == name:
            shell = PhaseState(name=name, state="running")
        else:
            shell = PhaseState(name=name, state="judging")
        if lines is None:
            return shell
        seen = measured(shell, tuple(lines), self._goal(name), self._placed())
        return seen if judged is None else with_result(seen, judged)

    def _placed(self) -> Plan:
        """The plan on the nodes that Slurm chose, once they are known."""
        job = self._liveness.job
        try:
            return on_nodes(self.plan, expand(job.nodes)) if job and job.nodes else self.plan
        except (HostlistError, LookupError):  # other nodes than the plan's
            return self.plan

    def _goal(self, name: str) -> Goal | None:
        log = self.run.loadgen(name) / mllog.FILE_NAME
        try:
            size = log.stat().st_size
        except OSError:
            return None
        if self._goals.get(name, (-1, None))[0] != size:
            so_far = mllog.read_so_far(log)
            self._goals[name] = (size, goal_of(so_far) if so_far else None)
        return self._goals[name][1]


def _newer(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_mtime_ns >= other.stat().st_mtime_ns
    except FileNotFoundError:
        return True


def _age_s(path: Path) -> float | None:
    try:
        return round(max(0.0, time.time() - path.stat().st_mtime), 1)
    except OSError:
        return None
