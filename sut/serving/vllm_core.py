"""A vLLM engine core in this process: ``python -m sut.serving.vllm_core MODEL [options]``.

For an engine of one rank on the CPU, and with the options of :mod:`sut.serving.vllm_headless`.
vLLM itself uses three processes for it, which import vllm and torch one after the other. It needs
the last one because OpenMP reads its threads' cores from the environment when a process starts, so
this process starts itself again with them (docs/decisions/one-process-for-an-engine.md).

What needs more than one process goes vLLM's own way.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from sut.serving import vllm_headless, vllm_report, vllm_sockets
from sut.serving.vllm_headless import end_with_parent

CORES = "SUT_ENGINE_CORES"  # set when this process has started itself again
# A thread that waits for the others by spinning uses up the time that a busy neighbour leaves it.
# With libgomp's own 300,000 iterations, a batch beside one took 1.4 times as long; idle, the same.
SPIN_COUNT = "10000"
UNIPROC = "VLLM_ENABLE_V1_MULTIPROCESSING"  # 0: vLLM starts no worker process on the CPU


def main() -> None:
    end_with_parent()
    if CORES in os.environ:
        _run()
    elif (bound := _bound(os.environ.get("VLLM_CPU_OMP_THREADS_BIND", ""))) is not None:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **bound})
    else:
        vllm_headless.run()


def _run() -> None:
    engine = _engine()
    if engine is None:
        del os.environ[UNIPROC]
        vllm_headless.run()
    else:
        _serve(*engine)


def _serve(config: Any, log_stats: bool) -> None:
    """Run the core in this thread. Ends the process."""
    vllm_sockets.authenticate()
    vllm_headless.check_layout()
    from vllm.utils.network_utils import get_tcp_uri
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    # OpenMP has bound this thread to the first core, and the sockets' threads would inherit that.
    os.sched_setaffinity(0, map(int, os.environ[CORES].split(",")))
    # The core would only note a SIGTERM until it has loaded. It leaves nothing behind.
    end_with_parent(signal.SIGKILL)
    parallel = config.parallel_config
    try:
        EngineCoreProc.run_engine_core(
            vllm_config=config,
            local_client=False,
            handshake_address=get_tcp_uri(
                parallel.data_parallel_master_ip, parallel.data_parallel_rpc_port
            ),
            executor_class=UniProcExecutor,
            log_stats=log_stats,
        )
    except SystemExit as end:  # at SIGTERM, after the core's own clean-up
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if end.code else 0)  # Python needs seconds to take torch apart


def _engine() -> tuple[Any, bool] | None:
    """vLLM's configuration from this command line, and whether to log statistics; None for an
    engine of several processes, or for options of vLLM's server."""
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.executor import Executor
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    given, others = vllm_report.parsed(sys.argv[1:])
    if others:
        return None
    vllm_report.report_all()
    config = given.create_engine_config(UsageContext.OPENAI_API_SERVER, headless=True)
    several = config.parallel_config.data_parallel_size > 1
    if several or Executor.get_class(config) is not UniProcExecutor:
        return None
    return config, not given.disable_log_stats


def _bound(bind: str) -> dict[str, str] | None:
    """The variables with which vLLM starts a CPU worker that is bound to the cores of ``bind``, and
    ours; None if it is not a list of cores, other libraries are given, or OpenMP's is missing."""
    openmp = _library("torch", "../torch.libs/libgomp*.so*", "lib/libgomp*.so*")
    allocator = _library("vllm", "libs/libtcmalloc*.so*")
    libraries = [library for library in (allocator, openmp) if library is not None]
    # vLLM sets the variable in a process that encodes requests, and engines inherit it.
    given = {Path(each).resolve() for each in os.environ.get("LD_PRELOAD", "").split(":") if each}
    if not re.fullmatch(r"\d+(,\d+)*", bind) or openmp is None or given - set(libraries):
        return None
    cores = bind.split(",")
    return {
        "LD_PRELOAD": ":".join(map(str, libraries)),
        "OMP_NUM_THREADS": str(len(cores)),
        "GOMP_CPU_AFFINITY": " ".join(cores),
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", SPIN_COUNT),
        CORES: bind,
        UNIPROC: "0",
    }


def _library(package: str, *patterns: str) -> Path | None:
    """The first such file of a package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    found = (each for pattern in patterns for each in folder.glob(pattern))
    return next((each.resolve() for each in found), None)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # in a process that vLLM has spawned
    vllm_sockets.authenticate()
