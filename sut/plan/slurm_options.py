"""The sbatch options of a run, from those of its site. Pure.

An option whose value is empty or null is left out, also one that the run would set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sut.errors import Errors
from sut.plan.site import SiteSlurm
from sut.units import quantity
from sut.values import NonNegativeInt, PositiveInt, Struct

ANY_GPU = "gpu"
# gpu, gpu:a30, gpu:a30:2; other forms in Slurm's output: gres:gpu:a30:2, gres/gpu:a30=2.
_GPUS = re.compile(r"(?:gres[:/])?gpu(?::([^:,=()\s]+))??(?:[:=](\d+))?", re.ASCII)
_NAMES_GPUS = re.compile(r"(?:gres[:/])?gpu(?:[:=]|$)")
_SOCKETS = re.compile(r"\([^()]*\)")  # gpu:a30:2(S:0-1)
_NO_TYPE = ":(null)"  # as in GresUsed: gpu:(null):3(IDX:0-2)
_NAME = re.compile(r"[a-z][a-z0-9-]+", re.ASCII)
# Options that a run sets itself, and how to change them.
_OWN = {
    "nodes": "--nodes N",
    "nodelist": "--nodes NAME,NAME",
    "exclude": "list only nodes for runs under nodes: in the site's file",
    "time": "--set site.slurm.time_min=MINUTES",
    "signal": "--set site.slurm.signal_delay_s=SECONDS",
} | dict.fromkeys(
    ("array", "error", "ntasks", "ntasks-per-node", "open-mode", "output", "wrap"), "leave it out"
)
# Of each of these, sbatch takes one: the site's takes the place of the run's.
_GPU_OPTIONS = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket")
_MEMORY_OPTIONS = ("mem", "mem-per-cpu", "mem-per-gpu")


class Slurm(Struct, frozen=True, kw_only=True):
    """The sbatch options of a run, by sbatch's names. Empty or 0: left out."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""  # per node, e.g. gpu:a30:1
    cpus_per_task: NonNegativeInt = 0  # a task is a node
    memory_gib: NonNegativeInt = 0  # per node; 0: all of it
    exclusive: bool = False
    time_min: PositiveInt
    signal_delay_s: PositiveInt  # time before the wall limit at which the run gets a signal
    max_requeues: NonNegativeInt  # after lost nodes
    sbatch: dict[str, str | bool] = {}  # other options; true: without a value; empty: left out
    setup: tuple[str, ...] = ()  # shell commands before the job's step

    @property
    def clusters(self) -> str:
        """The cluster of the job; empty for the one that this machine belongs to."""
        return str(self.sbatch.get("clusters", ""))


def of_site(asked: SiteSlurm, *, gpus: Sequence[int], time_min: int, errors: Errors) -> Slurm:
    """The options of a run on nodes with these numbers of GPUs."""
    options: dict[str, str | bool] = {
        "partition": asked.partition or "",
        "account": asked.account or "",
        "qos": asked.qos or "",
        "reservation": asked.reservation or "",
        "clusters": asked.clusters or "",
        "constraint": asked.constraint or "",
        "cpus-per-task": str(asked.cpus_per_task or ""),
        "exclusive": asked.exclusive or "",
    }
    given = _given(asked.sbatch, errors)
    if not any(given.get(name) for name in _GPU_OPTIONS):
        options |= _gpus(asked, gpus, errors)
    options = {**{name: value for name, value in options.items() if value}, **given}
    if asked.memory_gib is None or any(given.get(name) for name in _MEMORY_OPTIONS):
        options.setdefault("mem", "")
    if given.get("no-requeue"):
        options.setdefault("requeue", "")
    if "," in str(options.get("clusters", "")):
        errors.add(
            f"slurm.clusters is {options['clusters']}: a run needs one cluster, the one of its "
            "site's nodes",
            hint="write a site for each cluster, with one name: --set site.slurm.clusters=NAME",
        )
    gres = "" if "gres" in given else _text(options, "gres")
    if not asked.gres or asked.gpus_per_node or asked.gpus or len(set(gpus)) > 1:
        options.setdefault("gres", "")
    exclusive = options.get("exclusive") is True
    if exclusive:
        del options["exclusive"]
    return Slurm(
        partition=_text(options, "partition"),
        account=_text(options, "account"),
        qos=_text(options, "qos"),
        constraint=_text(options, "constraint"),
        gres=gres,
        cpus_per_task=_number(options, "cpus-per-task"),
        memory_gib=0 if "mem" in options else asked.memory_gib or 0,
        exclusive=exclusive,
        time_min=time_min,
        signal_delay_s=asked.signal_delay_s,
        max_requeues=0 if options.get("requeue") == "" else asked.max_requeues,
        sbatch=options,
        setup=asked.setup,
    )


def _text(options: dict[str, str | bool], name: str) -> str:
    """Takes a text out of ``options``; empty if there is none, or it is left out."""
    return str(options.pop(name)) if isinstance(options.get(name), str) else ""


def _number(options: dict[str, str | bool], name: str) -> int:
    text = options.get(name, "")
    return int(_text(options, name) or 0) if text == "" or str(text).isdecimal() else 0


def _given(sbatch: Mapping[str, str | int | bool | None], errors: Errors) -> dict[str, str | bool]:
    """The additional options of a site by their long names; one that is left out is empty."""
    found: dict[str, str | bool] = {}
    for key, value in sbatch.items():
        name = key.removeprefix("--").replace("_", "-")
        where = f"slurm.sbatch: {key}"
        if not _NAME.fullmatch(name):
            errors.add(
                f"{where} is not the long name of an sbatch option",
                hint="--set 'site.slurm.sbatch={reservation: mlperf}'; all names: man sbatch",
            )
        elif name in _OWN:
            errors.add(f"{where} is set by the run itself", hint=_OWN[name])
        elif isinstance(value, str) and not value.isprintable():
            errors.add(f"{where} is more than one line of text", hint="write it in one line")
        else:
            is_left_out = value is None or value is False
            found[name] = "" if is_left_out else True if value is True else str(value).strip()
    return found


def _gpus(asked: SiteSlurm, gpus: Sequence[int], errors: Errors) -> dict[str, str]:
    """The option that asks for the GPUs, with their number; empty without GPUs or an option.

    An option for a node has one number for all nodes. Where they differ, the run asks for the sum:
    its nodes are named, so these are all of their GPUs.
    """
    per_node, in_all = str(asked.gpus_per_node or "").strip(), str(asked.gpus or "").strip()
    gres = (asked.gres or "").strip()
    values = {"gpus_per_node": per_node, "gpus": in_all}
    if gres != ANY_GPU or not (per_node or in_all):
        values["gres"] = gres
    chosen = {key: value for key, value in values.items() if value}
    if len(chosen) > 1:
        errors.add(
            f"{' and '.join(f'slurm.{key}' for key in chosen)} both ask for the GPUs of a run",
            hint="use one of them; without a value an option is left out: "
            f"--set site.slurm.{next(reversed(chosen))}=null",
        )
    if not any(gpus) or len(chosen) != 1:
        return {}
    ((key, text),) = chosen.items()
    number = sum(gpus) if key == "gpus" else max(gpus)
    kind = _kind(key, text, number, errors)
    if len(set(gpus)) > 1:
        key, number = "gpus", sum(gpus)
    if key == "gres":
        return {key: f"{ANY_GPU}:{kind}:{number}" if kind else f"{ANY_GPU}:{number}"}
    return {key.replace("_", "-"): f"{kind}:{number}" if kind else str(number)}


def _kind(key: str, text: str, number: int, errors: Errors) -> str:
    """The type of GPU in the value of an option, which may be as Slurm prints it; empty if any will
    do. A number in it must be enough for the run, whose number takes its place."""
    where, is_gres = f"slurm.{key} is {text}", key == "gres"
    text = _SOCKETS.sub("", text.replace(_NO_TYPE, ""))
    parts = [each.strip() for each in text.split(",")]
    if not is_gres:
        parts = [each if _NAMES_GPUS.match(each) else f"{ANY_GPU}:{each}" for each in parts]
    found = {each: match for each in parts if (match := _GPUS.fullmatch(each))}
    if len(found) != len(parts) or len(found) != 1:
        errors.add(
            f"{where}: it must name the GPUs of a node and nothing else, as in "
            f"{'gpu:a30' if is_gres else 'a30'}; the number is added",
            hint=_right_form(key, {each: match[1] or "" for each, match in found.items()}, parts),
        )
        return ""
    ((kind, has),) = (match.groups() for match in found.values())
    if has and int(has) < number:
        errors.add(
            f"{where}, but the run uses {quantity(number, 'GPUs')} "
            f"{'in all' if key == 'gpus' else 'of each node'}",
            hint="correct gpus: of the nodes in the site's file",
        )
    return kind or ""


def _right_form(key: str, types: Mapping[str, str], parts: Sequence[str]) -> str:
    """How to write ``parts``, of which some are GPUs of these types."""

    def written(kind: str) -> str:
        return ":".join(filter(None, (ANY_GPU * (key == "gres" or not kind), kind)))

    if not types:
        return f"--set site.slurm.{key}={written('a30')} (list them: sinfo -o %G)"
    right = " or ".join(f"--set site.slurm.{key}={written(kind)}" for kind in types.values())
    if len(types) == len(parts) or key != "gres":
        return right
    whole = ",".join(f"{written(types[each])}:N" if each in types else each for each in parts)
    return f"""{right}; to ask for all: --set 'site.slurm.sbatch={{gres: "{whole}"}}', N GPUs"""
