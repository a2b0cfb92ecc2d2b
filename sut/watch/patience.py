"""When a command that follows a run stops, whoever is silent: the run, its folder or Slurm."""

from __future__ import annotations

import time

from sut.watch.state import RunState

LOST_AFTER_S = 10.0  # a shared file system may show a record late
GIVE_UP_S = 600.0  # without a sign of a run that nothing knows
LEAVING_S = 5.0  # for the job of a completed run to leave its nodes


class Patience:
    """Looks at one state after the other. A record that is final decides; Slurm can be late, or
    have forgotten the job."""

    def __init__(self, *, for_job: bool = False) -> None:
        """``for_job``: wait also until the job of a finished run has left its nodes."""
        self._for_job = for_job
        self._situation = ""
        self._since = 0.0  # of time.monotonic()

    def ends(self, state: RunState) -> bool:
        situation = "finished, in its job" if self._leaves(state) else state.state
        if situation != self._situation:
            self._situation, self._since = situation, time.monotonic()
        lasted_s = time.monotonic() - self._since
        match situation:
            case "finished, in its job":  # if the run is not complete, Slurm may start it again
                return state.status == "completed" and lasted_s >= LEAVING_S
            case "finished":
                return not state.ending
            case "lost":
                return lasted_s >= LOST_AFTER_S
            case "unknown":
                return lasted_s >= LOST_AFTER_S and state.unheard_s >= GIVE_UP_S
        return False

    def _leaves(self, state: RunState) -> bool:
        is_finished = state.state == "finished" and not state.ending
        return self._for_job and is_finished and state.job is not None and state.job.alive
