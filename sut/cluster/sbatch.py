"""sbatch's options, for submitit and for a user: the only module that knows them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sut.errors import EXIT_BAD_INPUT
from sut.plan.hostlist import compact
from sut.plan.plan import OnReplicaLoss, Plan
from sut.plan.slurm_options import Slurm
from sut.rundir import RunDir
from sut.values import Struct

# The variable with the folder of slurm/*.sh on the host, for a run in an image: empty without one.
SCRIPTS = "SUT_SCRIPTS"
_FOLDER = Path(__file__).resolve().parents[2] / "slurm"  # of a checkout
SIGNALLED = "SUT_SIGNALLED"  # the variable with the signal that a batch script got
# What slurm/*.sh request, by sbatch's options.
_TIME_MIN = 240
_OF_SCRIPTS = {
    "ntasks-per-node": 1,
    "gres": "gpu:1",
    "mem": "0",
    "time": _TIME_MIN,
    "signal": "USR2@120",
    "requeue": True,
    "open-mode": "append",
}


class Submission(Struct, frozen=True, kw_only=True):
    """When a job may start and who gets mail, by sbatch's names. Not part of the plan."""

    begin: str = ""  # e.g. 02:00, now+1hour
    dependency: str = ""  # e.g. singleton, afterany:123
    mail_type: str = ""  # e.g. END,FAIL
    mail_user: str = ""


def parameters(
    plan: Plan, run_dir: RunDir, submission: Submission, exclude: Sequence[str] = ()
) -> dict[str, Any]:
    """The arguments of ``submitit.SlurmExecutor.update_parameters`` for a run. ``exclude`` are the
    nodes that Slurm must not choose."""
    asked = plan.slurm
    assert asked is not None
    given = {
        "job_name": f"sut-{plan.benchmark}-{plan.scenario}",
        "comment": str(run_dir),  # from a job id to its files
        "nodes": len(plan.nodes),
        "ntasks_per_node": 1,
        "time": asked.time_min,
        "signal_delay_s": asked.signal_delay_s,
        "stderr_to_stdout": True,
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "gres": asked.gres,
        "nodelist": ",".join(node.name for node in plan.nodes if node.name),
        "exclude": ",".join(exclude),
        "cpus_per_task": asked.cpus_per_task,
        "exclusive": asked.exclusive,
        "dependency": submission.dependency,
    }
    options = _additional(plan, asked, submission)
    replaced = {name.replace("-", "_") for name in asked.sbatch} & given.keys()
    return {
        **{name: value for name, value in given.items() if value},
        **dict.fromkeys(replaced),  # submitit leaves out None
        "wckey": None,
        "setup": [*_setup(asked, run_dir), *end_srun(plan)],
        "srun_args": step_options(plan),
        "additional_parameters": {name: value for name, value in options.items() if value != ""},
    }


def step_options(plan: Plan) -> list[str]:
    """srun's: a task that fails, or loses its node, ends the others. But a run that continues
    without a replica decides itself, and its other nodes end with its head."""
    return (
        ["--kill-on-bad-exit=0", "--no-kill"] if _outlives_nodes(plan) else ["--kill-on-bad-exit=1"]
    )


# Where the job's nodes cannot reach each other, srun does not learn that another node's task ended,
# and would wait for ever. Slurm's controller does: once it has twice shown no step, srun is killed,
# whether it is this shell's child or has replaced it (exec).
_END_SRUN = """\
end_srun() {
  local steps seen=0 gone=0
  while [ "$gone" -lt 2 ]; do
    sleep 15
    kill -0 $$ 2>/dev/null || return
    steps=$(squeue --noheader --steps --jobs="$SLURM_JOB_ID" --format=%i) || continue
    case $steps in
      *.[0-9]*) seen=1 gone=0 ;;
      *.*) gone=$((gone + seen)) ;;
    esac
  done
  echo "srun has not noticed that its step ended: it is killed" >&2
  pkill -KILL -x srun --parent $$ || { [ "$(cat /proc/$$/comm)" = srun ] && kill -KILL $$; }
}
end_srun &"""


def end_srun(plan: Plan) -> list[str]:
    """Shell lines before srun, that end it where it does not end by itself."""
    return [_END_SRUN] if _outlives_nodes(plan) else []


def _outlives_nodes(plan: Plan) -> bool:
    return len(plan.nodes) > 1 and plan.on_replica_loss is not OnReplicaLoss.FAIL


def _setup(asked: Slurm, run_dir: RunDir) -> list[str]:
    """Lines before srun: the script's last command, the site's, and the cores (srun of Slurm 22.05
    and 23.02 ignores SLURM_CPUS_PER_TASK)."""
    last = shlex.join([sys.executable, "-m", "sut.requeue", str(run_dir)])
    # Without a handler, bash would end at SIGTERM, before srun has ended the run.
    lines = [f"trap {shlex.quote(last)} EXIT", f"trap 'export {SIGNALLED}=SIGTERM' TERM"]
    lines.append(f"{only_from_own_folder(run_dir)} || exit {EXIT_BAD_INPUT}")
    lines += setup(asked)
    if asked.cpus_per_task:
        lines.append('export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"')
    return lines


def setup(asked: Slurm) -> list[str]:
    """The site's shell commands; one that fails ends the shell."""
    return [
        f"eval {shlex.quote(command)} || {{ printf '%s\\n' "
        f"{shlex.quote(f'error: slurm.setup failed: {command}')} >&2; exit {EXIT_BAD_INPUT}; }}"
        for command in asked.setup
    ]


def shown(asked: Slurm) -> str:
    """The options that the site decides, as sbatch gets them."""
    values: dict[str, str | int | bool] = {
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "gres": asked.gres,
        "cpus-per-task": asked.cpus_per_task,
        "mem": _memory(asked),
        "exclusive": asked.exclusive,
        **asked.sbatch,
    }
    return " ".join(_option(name, value) for name, value in values.items() if value)


def _option(name: str, value: str | int | bool) -> str:
    return f"--{name}" if value is True else f"--{name}={value}"


def only_from_own_folder(run_dir: RunDir) -> str:
    """A shell command that fails where another user can have written submitit's files: the job
    executes what it unpickles from them."""
    folder = shlex.quote(str(run_dir.job))
    # submitit links its script under a second name; the mode of a link means nothing.
    foreign = f'find -H {folder} -maxdepth 1 ! -user "$(id -u)" -o ! -type l -perm /022'
    problem = shlex.quote(f"error: {run_dir.job} has files that another user can change:")
    hint = "hint: submit again, with --set site.run_root=FOLDER that only you may write to"
    return f"! {foreign} | grep . || ! printf '%s\\n' {problem} {shlex.quote(hint)} >&2"


def _additional(plan: Plan, asked: Slurm, submission: Submission) -> dict[str, Any]:
    options: dict[str, Any] = {
        "requeue": True,
        "open-mode": "append",  # a requeued job keeps its earlier output
        "mem": _memory(asked),
    }
    if _outlives_nodes(plan):
        options["no-kill"] = True
    given = {
        "begin": submission.begin,
        "mail-type": submission.mail_type,
        "mail-user": submission.mail_user,
    }
    options |= {name: value for name, value in given.items() if value}
    return {**options, **asked.sbatch}


def _memory(asked: Slurm) -> str:
    """submitit takes whole GB only. 0 is all of a node's memory; exclusive alone is not."""
    return f"{asked.memory_gib}G" if asked.memory_gib else "0"


def scripts() -> str:
    """The folder of slurm/*.sh on the host, absolute; empty where it is not installed."""
    return os.environ.get(SCRIPTS, str(_FOLDER) if _FOLDER.is_dir() else "")


def continuing(plan: Plan, run_dir: RunDir) -> str:
    """The command that continues a run in its folder, from any folder; finished phases are kept. It
    uses a script of slurm/ where there is one and each option of it may be given."""
    if plan.slurm is None:
        return shlex.join(["python", "-m", "sut.job", str(run_dir)])
    asked, num_nodes = plan.slurm, len(plan.nodes)
    script, of_script = ("single", 1) if num_nodes == 1 else ("multi", 2)
    lines = {"nodes": of_script, **_OF_SCRIPTS}
    wanted: dict[str, str | int | bool] = {
        "nodes": num_nodes,
        "ntasks-per-node": 1,
        "nodelist": compact([node.name for node in plan.nodes if node.name]),
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "gres": asked.gres or ("" if plan.nodes[0].gpus else "none"),
        "cpus-per-task": asked.cpus_per_task,
        "mem": _memory(asked),
        "time": max(asked.time_min, _TIME_MIN),
        "signal": f"USR2@{asked.signal_delay_s}",
        "requeue": True,
        "open-mode": "append",
        "exclusive": asked.exclusive,
        "no-kill": _outlives_nodes(plan),
        **asked.sbatch,
    }
    folder = scripts()
    uses_script = bool(folder) and all(wanted[name] for name in lines)
    words = [
        _option(name, value)
        for name, value in wanted.items()
        if value and not (uses_script and lines.get(name) == value)
    ]
    if uses_script:
        return shlex.join(["sbatch", *words, f"{folder}/{script}.sh", str(run_dir)])
    command = shlex.join(["exec", "python3", "-m", "sut.batch", str(run_dir)])
    return shlex.join(["sbatch", *words, f"--wrap={command}"])
