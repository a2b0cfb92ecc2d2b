"""Show a run's state: on a terminal a frame that is redrawn, elsewhere a line every few seconds."""

from __future__ import annotations

import time

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner

from sut.watch.frame import frame, line
from sut.watch.state import RunState

PLAIN_INTERVAL_S = 10.0  # between lines of one step without a terminal
SPIN_S = 0.1  # between two frames of the spinner


def print_once(what: RenderableType) -> None:
    """Print on standard output; into a pipe or a file without the spaces that fill a line."""
    console = Console()
    if console.is_terminal:
        console.print(what)
        return
    with console.capture() as captured:
        console.print(what)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


class Screen:
    """A context that shows states. On a terminal it leaves nothing behind."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live: Live | None = None
        self._spinner = Spinner("line" if self._console.options.ascii_only else "dots")
        self._spins = False
        self._last = ("", float("-inf"))

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, state: RunState) -> None:
        if self._live is not None:
            self._spins = is_waiting(state)
            self._live.update(frame(state, self._spinner if self._spins else None), refresh=True)
            return
        if state.state == "finished" and not state.ending:
            return  # its result follows
        now, (last_step, last_s) = time.monotonic(), self._last
        step = f"{state.state} {state.ending or state.step}"
        if step != last_step or now - last_s >= PLAIN_INTERVAL_S:
            self._last = (step, now)
            print(line(state), file=self._console.file, flush=True)

    def wait(self, seconds: float) -> None:
        """Sleep. While the run is loading, the spinner turns: nothing else would show that it is
        alive. In a phase nothing is drawn, because the run may be on this machine."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            if self._live is None or not self._spins:
                time.sleep(left_s)
                continue
            time.sleep(min(left_s, SPIN_S))
            self._live.refresh()


def is_waiting(state: RunState) -> bool:
    """Whether the run is on its way and no phase shows its progress."""
    going = state.state in ("pending", "starting", "running") or bool(state.ending)
    return going and not any(phase.state == "running" for phase in state.phases)
