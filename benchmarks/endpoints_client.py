"""MLCommons' endpoints client as a peer: it sends the prompts' token ids to ``vllm serve``.

It is not a dependency: it needs Python 3.12 or newer and packages of its own. From a checkout of
https://github.com/mlcommons/endpoints and such a Python:

    python3.12 -m venv FOLDER && FOLDER/bin/pip install CHECKOUT

The program is then FOLDER/bin/inference-endpoint.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sut.inputs import model
from sut.plan.benchmark import Scenario
from sut.plan.plan import Plan
from sut.results.measures import Quantiles

SERVER_QUERIES = 470  # as the smoke preset's


class EndpointMeasures(NamedTuple):
    """By the client's own clock. ``tokens_per_s`` is None where it gave no rate."""

    tokens_per_s: float | None
    ttft_ms: Quantiles
    tpot_ms: Quantiles


def measured(
    program: Path,
    address: str,
    served_name: str,
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    folder: Path,
    qps: float | None,
    num_samples: int,
) -> EndpointMeasures:
    """One benchmark of the client: Poisson arrivals at ``qps``, or all at once. Ends this program
    where the client fails."""
    data = folder / "prompts.jsonl"
    lines = (json.dumps({"input_tokens": list(prompt)}) for prompt in prompts)
    data.write_text("\n".join(lines) + "\n")
    mode = ["offline"]
    if qps is not None:
        mode = ["online", "--load-pattern", "poisson", "--target-qps", str(qps)]
    report = folder / "report"
    words = [str(program), "benchmark", *mode, "--endpoints", address, "--model", served_name]
    words += ["--dataset", str(data), "--endpoint-config.api-type", "openai_completions"]
    words += ["--max-output-tokens", str(plan.generation.max_tokens)]
    words += ["--model-params.min-new-tokens", str(plan.generation.min_tokens)]
    words += ["--model-params.temperature", "0", "--streaming", "on", "--duration", "1"]
    words += ["--num-samples", str(num_samples), "--workers", "1", "--no-cpu-affinity"]
    words += ["--tokenizer", str(model.locate(plan.model)), "--report-dir", str(report)]
    if subprocess.run(words, stdout=subprocess.DEVNULL).returncode != 0:
        raise SystemExit(f"error: {program} failed; its files: {report}")
    found = json.loads((report / "performance" / "result_summary.json").read_text())
    return EndpointMeasures(found["tps"], _quantiles(found["ttft"]), _quantiles(found["tpot"]))


def num_samples(scenario: Scenario, offline: int) -> int:
    return offline if scenario is Scenario.OFFLINE else SERVER_QUERIES


def _quantiles(found: dict[str, dict[str, float]]) -> Quantiles:
    """In ms."""
    at = found["percentiles"]
    return Quantiles(p50=at["50.0"] / 1e6, p90=at["90.0"] / 1e6, p99=at["99.0"] / 1e6)
