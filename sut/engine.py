"""One engine process: its command line, its environment, its life.

``argv`` and ``environment`` are functions of the plan; :class:`EngineProcess` runs what they say
in a process group of its own, so that stopping it reaches everything it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import sut
from sut.errors import RunError
from sut.plan import Device, EngineKind, Plan, Replica
from sut.rundir import RunDir

REPLAY_ENGINE = Path(sut.__file__).parent / "replay_engine"


def argv(plan: Plan, replica: Replica, host: str, port: int, model_path: Path | None) -> list[str]:
    """The command of one engine, whose front-end's handshake socket is at ``host:port``."""
    match plan.engine.kind:
        case EngineKind.VLLM:
            assert model_path is not None
            return _vllm_argv(plan, host, port, model_path)
        case EngineKind.REPLAY:
            return _replay_argv(plan, replica, host, port)


def _vllm_argv(plan: Plan, host: str, port: int, model_path: Path) -> list[str]:
    engine = plan.engine
    command = [sys.executable, "-m", "sut.vllm_headless", str(model_path), "--headless"]
    command += ["--data-parallel-address", host, "--data-parallel-rpc-port", str(port)]
    command += ["--dtype", engine.dtype]
    command += ["--max-model-len", str(engine.max_model_len)]
    command += ["--max-num-seqs", str(engine.max_num_seqs)]
    command += ["--max-num-batched-tokens", str(engine.max_num_batched_tokens)]
    command += ["--tensor-parallel-size", str(engine.tensor_parallel_size)]
    command += ["--pipeline-parallel-size", str(engine.pipeline_parallel_size)]
    # MLPerf's rules: nothing may be remembered from one query to the next.
    command += ["--no-enable-prefix-caching"]
    if engine.enforce_eager:
        command += ["--enforce-eager"]
    return [*command, *engine.extra_args]


def _replay_argv(plan: Plan, replica: Replica, host: str, port: int) -> list[str]:
    engine, model = plan.engine, plan.engine.replay
    command = [str(REPLAY_ENGINE), "--handshake", f"tcp://{host}:{port}"]
    command += ["--max-model-len", str(engine.max_model_len)]
    command += ["--max-num-seqs", str(engine.max_num_seqs)]
    command += ["--max-num-batched-tokens", str(engine.max_num_batched_tokens)]
    command += ["--prefill-tokens-per-s", str(model.prefill_tokens_per_s)]
    command += ["--step-base-us", str(model.step_base_us)]
    command += ["--step-per-sequence-us", str(model.step_per_sequence_us)]
    command += ["--seed", str(model.seed + replica.index)]
    for fault in model.faults:
        command += ["--fault", fault]
    return command


def environment(plan: Plan, replica: Replica, host: str) -> dict[str, str]:
    """What an engine's environment has on top of ours. The plan's ``env`` comes last."""
    added = {
        "VLLM_DP_MASTER_IP": host,  # with one data-parallel rank the option alone is ignored
        "VLLM_HOST_IP": plan.host,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if plan.device is Device.CPU:
        # Unset, vLLM claims 92% of the host's memory for every engine, keeps a core for a
        # front-end that is not there, and binds every engine to the same cores.
        added["VLLM_CPU_KVCACHE_SPACE"] = str(plan.cpu.kv_cache_gib)
        added["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"
        added["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, replica.cpus)) or "all"
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = [visible[g] if g < len(visible) and visible[g] else str(g) for g in replica.gpus]
        added["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    return {**added, **plan.env}


class EngineProcess:
    """A running engine. Its output goes to ``logs/replica-N.log`` of the run."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log

    @classmethod
    def start(
        cls,
        plan: Plan,
        replica: Replica,
        host: str,
        port: int,
        model_path: Path | None,
        run_dir: RunDir,
    ) -> EngineProcess:
        """Start it and return at once. Call from the main thread: an engine ends with the
        thread that started it. Raises RunError when there is no such program."""
        log = run_dir.replica_log(replica.index)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = argv(plan, replica, host, port, model_path)
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment(plan, replica, host)},
                    start_new_session=True,
                )
            except OSError as error:
                raise RunError(
                    f"{command[0]} can't be started: {error.strerror}. "
                    "Build the project again: pip install .",
                    code="engine_missing",
                    replica=replica.index,
                ) from None
        return cls(process, log)

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        return self._process.poll()

    def tail(self, num_lines: int) -> str:
        """The last lines of its log, without blank ones."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-num_lines:])

    def stop(self, timeout_s: float) -> None:
        """End it and everything it started: SIGTERM, and SIGKILL after ``timeout_s``."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while self._group_lives() and time.monotonic() < deadline:
            self._process.poll()
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _group_lives(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True
