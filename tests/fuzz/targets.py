"""The fuzz targets: each is a function of bytes, which raises where the code breaks its contract.

Bytes of any kind are read, or refused with the one error that the reader promises. Its message can
be printed, and what was read can be written to a record.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from unittest import mock

import msgspec
from plans import plan_of

from sut.cluster import limits, partitions, slurm
from sut.errors import Errors, InputError, RunError, SutError
from sut.history import row
from sut.inputs import pickles, tokenized
from sut.plan import config, document, hostlist
from sut.plan.benchmark import Benchmark
from sut.plan.config import Campaign
from sut.plan.hostlist import HostlistError
from sut.plan.site import Site
from sut.results import accuracy, answers, mllog, progress, record, sample_log, telemetry
from sut.serving import channel, keeper_messages, messages, wire
from sut.serving.channel import Channel, LostError

_T = TypeVar("_T")

FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
PLAN = plan_of("replay", site="local")
ON_SLURM = plan_of("replay", site="devcluster", nodes="all")
MAX_SENT = 64 * 1024  # what the kernel buffers while nobody reads


def mllog_target(data: bytes) -> None:
    path = _file(mllog.FILE_NAME, data)
    part = mllog.read_so_far(path)
    assert part is not None
    for log in (part, _refused(InputError, lambda: mllog.read(path))):
        if log is None:
            continue
        for key in log.values:
            for get in (log.number, log.count, log.flag, log.text):
                _refused(InputError, lambda get=get, key=key: get(key))
        assert log.num_errors >= len(log.errors)
        _refused(InputError, lambda log=log: (log.scenario, log.mode))
        assert isinstance(log.version, tuple | None)
        msgspec.json.encode(log)
    if log is not None:
        assert log == part


def accuracy_target(data: bytes) -> None:
    path = _file(answers.FILE_NAME, data)
    found = _refused(InputError, lambda: answers.parse(path, data))
    for answer in found or ():
        assert all(-(2**31) <= token < 2**31 for token in answer.tokens + answer.first_tokens)
        msgspec.json.encode(answer)
    by_sample = _refused(SutError, lambda: accuracy.read_answers(path, 2))
    assert by_sample is None or by_sample.keys() == {0, 1}


def samples_target(data: bytes) -> None:
    path = _file("samples.csv", data)
    found = _refused(InputError, lambda: sample_log.read(path))
    if found is not None:
        for row in range(len(found)):
            found.ttft_ms(row), found.tpot_ms(row)
        found.span_s()


def pickle_target(data: bytes) -> None:
    """Nothing that a pickle names is imported."""
    with mock.patch("builtins.__import__", side_effect=AssertionError("imported")):
        table = _refused(InputError, lambda: pickles.read_table(data, "data.pkl"))
    if table is not None:
        assert all(isinstance(name, str) for name in table)
        msgspec.json.encode(table)


def tokens_target(data: bytes) -> None:
    found = _refused(InputError, lambda: tokenized.read(Path("data.jsonl"), data))
    if found is not None:
        header, samples = found
        content = tokenized.encode(header.source, header.source_md5, samples)
        assert tokenized.read(Path("data.jsonl"), content) == found


def record_target(data: bytes) -> None:
    path = _file("record.json", data)
    _refused(InputError, lambda: record.read(path))
    row.read_row(path.parent, ".", path.stat())


def lines_target(data: bytes) -> None:
    """Files of one JSON object a line, whose damaged lines are skipped."""
    path = _file("any.jsonl", data)
    for line in (*progress.Reader(path).read(), *telemetry.read(path)):
        msgspec.json.encode(line)


def config_target(data: bytes) -> None:
    path = _file("any.yaml", data)
    _refused(InputError, lambda: config.read_as(path, Benchmark))
    _refused(InputError, lambda: config.read_as(path, Campaign))
    site = _refused(InputError, lambda: config.load_site(str(path)))
    if site is not None:
        assert msgspec.json.decode(msgspec.json.encode(site), type=Site) == site


def set_target(data: bytes) -> None:
    benchmark: document.Document = {"presets": {"quick": {"server": {"x": 1}}}}
    change = data.decode(errors="replace")
    _refused(InputError, lambda: document.apply(change, benchmark, {}))


def hostlist_target(data: bytes) -> None:
    names = _refused(HostlistError, lambda: hostlist.expand(data.decode(errors="replace")))
    if names is not None:
        assert 0 < len(names) <= hostlist.MAX_NAMES
        assert sum(map(len, names)) <= hostlist.MAX_NAMES * hostlist.MAX_NAME_CHARS
        assert hostlist.expand(hostlist.compact(names)) == names
    hostlist.compact(data.decode(errors="replace").split(","))


def slurm_target(data: bytes) -> None:
    """Every command prints ``data``."""

    def run(command: list[str], *, errors: str = "strict", **_: object) -> object:
        return subprocess.CompletedProcess(command, 0, data.decode(errors=errors), "")

    with mock.patch.object(subprocess, "run", run):
        state = slurm.job_state("1")
        if state is not None:
            msgspec.json.encode(state)
            assert "|" not in state.state
        slurm.setting("ClusterName"), slurm.node_names(), slurm.command_of("1")
        slurm.has_steps("1"), slurm.is_preempted("1")
        with contextlib.suppress(SutError):
            slurm.forwarded_env({"SLURM_JOB_NODELIST": "n[1-2]"})
        known, machines = partitions.known(), list(partitions.every_machine().values())
        for machine in machines:
            assert machine.cpus >= 0 and machine.memory_mib >= 0
            partitions.gpus_of(machine.gres)
        errors = Errors()
        limits.check_partition(ON_SLURM, known, errors)
        limits.check_machines(ON_SLURM, machines, errors)
        limits.check_account(ON_SLURM, errors)


def channel_target(data: bytes) -> None:
    """A peer sends ``data`` and ends its connection. The first byte chooses what we expect."""
    ours, theirs = socket.socketpair()
    expected, sent = data[:1], data[1 : MAX_SENT + 1]
    with theirs, mock.patch.object(channel, "_limit_silence"):
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        one = Channel(ours)
        try:
            match expected:
                case b"a":
                    one.authenticate(b"secret", asked_first=True)
                    raise AssertionError("a stranger was let in")
                case b"b":
                    one.authenticate(b"secret", asked_first=False)
                    raise AssertionError("a stranger was let in")
                case _:
                    decoders = (
                        messages.HELLO,
                        messages.REQUEST,
                        messages.ANSWER,
                        keeper_messages.SETUP,
                        keeper_messages.REQUEST,
                        keeper_messages.ANSWER,
                    )
                    decoder = decoders[int.from_bytes(expected, "big") % len(decoders)]
                    while True:
                        message = one.receive(decoder)
                        one.send(message)
        except LostError as error:
            str(error).encode()
        finally:
            one.close()


def frames_target(data: bytes) -> None:
    """The same with whole frames: ``data`` is the content of one message."""
    content = data[1 : MAX_SENT - 16]
    channel_target(data[:1] + struct.pack("!i", len(content)) + content)


def ready_target(data: bytes) -> None:
    _refused(RunError, lambda: wire.check_ready(data, PLAN))


def _refused(error: type[Exception], call: Callable[[], _T]) -> _T | None:
    """What ``call`` returns; None where it raises ``error``, whose text can be printed."""
    try:
        return call()
    except error as raised:
        str(raised).encode()
        return None


def _file(name: str, data: bytes) -> Path:
    path = Path(FOLDER.name, name)
    path.write_bytes(data)
    return path


TARGETS: dict[str, Callable[[bytes], None]] = {
    "mllog": mllog_target,
    "accuracy": accuracy_target,
    "samples": samples_target,
    "pickle": pickle_target,
    "tokens": tokens_target,
    "record": record_target,
    "lines": lines_target,
    "config": config_target,
    "set": set_target,
    "hostlist": hostlist_target,
    "slurm": slurm_target,
    "channel": channel_target,
    "frames": frames_target,
    "ready": ready_target,
}
