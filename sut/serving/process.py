"""One engine process: its command line, its environment, its start and end.

A replica has one process for each of its parts, which are on different nodes. ``argv`` and
``environment`` are functions of the plan. :class:`EngineProcess` runs in its own process group, so
stopping it also stops every process that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

import sut
from sut.errors import RunError
from sut.machine import variables
from sut.plan.benchmark import EngineKind
from sut.plan.plan import Plan
from sut.plan.site import Device
from sut.serving import dtype, keys
from sut.serving.keys import EngineKeys, KeyFile
from sut.serving.shared_memory import SharedMemory
from sut.serving.vllm_headless import PARENT
from sut.serving.vllm_report import EXTRA_ARGS, REPORT
from sut.values import Struct

REPLAY_ENGINE = Path(sut.__file__).parent / "replay_engine"


class Address(Struct, frozen=True):
    """A TCP port of a node, reachable from the others."""

    host: str
    port: int


PartId = tuple[int, int]  # a replica's index, and the part's index in Replica.parts


class Launch(Struct, frozen=True, kw_only=True):
    """What the process of one part of a replica needs in addition to the plan."""

    replica: int  # its index
    part: int  # its index in Replica.parts, vLLM's node rank
    handshake: Address  # the dispatcher's socket for this replica
    rendezvous: Address | None = None  # where the ranks of a replica of several parts meet
    host: str  # this node's address
    kept: bool = False  # it outlives this run's front-end
    restart: int = 0  # how often the replica's engine was started before


class Command(Struct, frozen=True, kw_only=True):
    """A program with its whole environment."""

    argv: tuple[str, ...]
    env: dict[str, str]


def command(
    plan: Plan, launch: Launch, model_path: Path | None, report: Path | None = None
) -> Command:
    """What :class:`EngineProcess` runs for one part of a replica. The engine writes its
    configuration to ``report``."""
    words = tuple(argv(plan, launch, model_path))
    env = variables.for_engine(os.environ) | environment(plan, launch)
    if report is not None:
        env |= {REPORT: str(report), EXTRA_ARGS: str(len(plan.engine.extra_args))}
    return Command(argv=words, env=env)


def argv(plan: Plan, launch: Launch, model_path: Path | None) -> list[str]:
    match plan.engine.kind:
        case EngineKind.VLLM:
            assert model_path is not None
            return _vllm_argv(plan, launch, model_path)
        case EngineKind.REPLAY:
            return _replay_argv(plan, launch)


def _vllm_argv(plan: Plan, launch: Launch, model_path: Path) -> list[str]:
    engine, handshake = plan.engine, launch.handshake
    command = [sys.executable, "-m", _vllm_module(plan), str(model_path), "--headless"]
    command += ["--data-parallel-address", handshake.host]
    command += ["--data-parallel-rpc-port", str(handshake.port)]
    command += ["--dtype", dtype.of(plan)]
    command += ["--max-model-len", str(engine.max_model_len)]
    command += ["--max-num-seqs", str(engine.max_num_seqs)]
    command += ["--max-num-batched-tokens", str(engine.max_num_batched_tokens)]
    command += ["--tensor-parallel-size", str(engine.tensor_parallel_size)]
    command += ["--pipeline-parallel-size", str(engine.pipeline_parallel_size)]
    if launch.rendezvous is not None:
        parts = plan.replicas[launch.replica].parts
        command += ["--nnodes", str(len(parts)), "--node-rank", str(launch.part)]
        command += ["--master-addr", launch.rendezvous.host]
        command += ["--master-port", str(launch.rendezvous.port)]
    # MLPerf's rules forbid caching from one query to the next.
    command += ["--no-enable-prefix-caching"]
    if engine.enforce_eager:
        command += ["--enforce-eager"]
    return [*command, *engine.extra_args]


def _vllm_module(plan: Plan) -> str:
    """Several ranks need several processes. On a GPU, one process has not been tried."""
    num_ranks = plan.engine.tensor_parallel_size * plan.engine.pipeline_parallel_size
    one_process = plan.device is Device.CPU and num_ranks == 1
    return "sut.serving.vllm_core" if one_process else "sut.serving.vllm_headless"


def _replay_argv(plan: Plan, launch: Launch) -> list[str]:
    engine, model = plan.engine, plan.engine.replay
    handshake = f"tcp://{launch.handshake.host}:{launch.handshake.port}"
    command = [str(REPLAY_ENGINE), "--handshake", handshake]
    command += ["--max-model-len", str(engine.max_model_len)]
    command += ["--max-num-seqs", str(engine.max_num_seqs)]
    command += ["--max-num-batched-tokens", str(engine.max_num_batched_tokens)]
    command += ["--prefill-tokens-per-s", str(model.prefill_tokens_per_s)]
    command += ["--step-base-us", str(model.step_base_us)]
    command += ["--step-per-sequence-us", str(model.step_per_sequence_us)]
    command += ["--seed", str(model.seed + launch.replica)]
    for fault in model.faults:
        command += ["--fault", fault]
    if launch.kept:
        command += ["--on-disconnect", "reconnect"]
    return command


def environment(plan: Plan, launch: Launch) -> dict[str, str]:
    """The variables added to this process's environment. The plan's ``env`` overrides them."""
    part = plan.replicas[launch.replica].parts[launch.part]
    added = {
        # With one data-parallel rank vLLM ignores --data-parallel-address.
        "VLLM_DP_MASTER_IP": launch.handshake.host,
        "VLLM_HOST_IP": launch.host,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if plan.interface:
        added["GLOO_SOCKET_IFNAME"] = added["NCCL_SOCKET_IFNAME"] = plan.interface
    if plan.device is Device.CPU:
        # By default every engine takes 92% of the host's memory, reserves a core for a front-end
        # that does not exist, and binds to the same cores.
        added["VLLM_CPU_KVCACHE_SPACE"] = str(plan.cpu.kv_cache_gib)
        added["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"
        added["VLLM_CPU_OMP_THREADS_BIND"] = _cpu_bind(
            part.cpus, plan.ranks_per_part(launch.replica)
        )
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = [visible[g] if g < len(visible) and visible[g] else str(g) for g in part.gpus]
        added["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    return {**added, **plan.env}


def _cpu_bind(cpus: Sequence[int], num_ranks: int) -> str:
    """vLLM's list of cores: those of each rank, ranks separated by a bar. A part without cores of
    its own may use all; any other has at least one for each rank."""
    if not cpus:
        return "all"
    share = len(cpus) // num_ranks
    assert share > 0, f"{num_ranks} ranks on cores {cpus}"
    ranks = (cpus[rank * share : (rank + 1) * share] for rank in range(num_ranks))
    return "|".join(",".join(map(str, each)) for each in ranks)


@contextlib.contextmanager
def _usr2_blocked() -> Iterator[None]:
    """Processes started in this context never receive SIGUSR2, which would kill them. Slurm sends
    it to every process of a job near the wall limit. This process receives it after the context."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})


class EngineProcess:
    def __init__(
        self,
        command: Command,
        output: int | BinaryIO,
        replica: int,
        engine_keys: EngineKeys | None,
    ) -> None:
        """Start it and return at once. ``output`` is as in :mod:`subprocess`. A process without
        keys cannot connect to the dispatcher. Call from the main thread: an engine ends with the
        thread that started it. Raises RunError where the program is missing.
        """
        added = {PARENT: str(os.getpid())}
        self._key_file = None if engine_keys is None else KeyFile(engine_keys)
        if self._key_file is not None:
            added[keys.VARIABLE] = self._key_file.path
        self._shared_memory = SharedMemory()
        with _usr2_blocked():
            try:
                self._process = subprocess.Popen(
                    command.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**command.env, **added},
                    start_new_session=True,
                )
            except OSError as error:
                self._close_key_file()
                raise RunError(
                    f"cannot start {command.argv[0]}: {error.strerror}",
                    hint="build the project again: pip install .",
                    code="engine_missing",
                    replica=replica,
                ) from None

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its session and process group."""
        return self._process.pid

    @property
    def output(self) -> IO[bytes]:
        """What it prints, where ``output`` was a pipe."""
        assert self._process.stdout is not None
        return self._process.stdout

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        return self._process.poll()

    def note_shared_memory(self) -> None:
        """Call once it is loaded: what it shares then is removed also where something else kills
        all its processes at once."""
        self._shared_memory.look(self.pid)

    def terminate(self) -> None:
        """Send SIGTERM to its process group. Does not wait."""
        self._shared_memory.look(self.pid)  # of several processes, some may end without cleaning up
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to its process group. Does not wait."""
        self._shared_memory.look(self.pid)
        self._signal(signal.SIGKILL)

    def stop(self, deadline: float) -> None:
        """Wait until its process group has ended. At ``deadline`` (``time.monotonic``), kill it.
        No shared memory stays."""
        while self.lives() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill()
        self._process.wait()
        self._shared_memory.remove(self.pid)
        self._close_key_file()

    def _close_key_file(self) -> None:
        if self._key_file is not None:
            self._key_file.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def lives(self) -> bool:
        """Whether a process of its group runs."""
        self._process.poll()
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True
