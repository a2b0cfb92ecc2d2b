"""What LoadGen's ``mlperf.conf`` sets for a benchmark that counts tokens, in the round of this
LoadGen.

LoadGen applies its own file; this table is for showing the settings before a run and for judging
LoadGen's log after it, on machines without LoadGen too. A test compares the two.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from sut.plan.benchmark import ScenarioSettings
from sut.plan.plan import Plan

ROUND = "v6.1"

# MLCommons' audit.config of TEST06; those of TEST07 and TEST09 issue and log every sample once.
_AUDIT_CONFIG = """\
*.*.mode = 2
*.*.accuracy_log_rng_seed = 720381539243781796
*.*.accuracy_log_sampling_target = {logged}
*.*.min_query_count = {queries}
*.*.min_duration = 0
*.*.sample_concatenate_permutation = 0
"""
_EVERY_SAMPLE = "*.*.performance_issue_unique = 1\n"
TEST06_QUERIES = 100
_TEST09_LOGGED = 10_000  # more than the data of each benchmark with TEST09 has


class _Limits(NamedTuple):
    ttft_ms: int
    tpot_ms: int


class _Model(NamedTuple):
    """A model that counts tokens. ``name`` is LoadGen's; ``num_samples`` those of its data set.
    ``whole``: an Offline test issues all of them; ``num_accuracy``: an accuracy test only these."""

    name: str
    num_samples: int
    server: _Limits | None
    whole: bool = False
    num_accuracy: int | None = None


_MODELS = (
    _Model("llama3_1-8b", 13_368, _Limits(2000, 100), whole=True),
    _Model("llama3_1-8b-interactive", 13_368, _Limits(500, 30)),
    _Model("llama3_1-8b-edge", 5_000, None, whole=True),
    _Model("llama2-70b", 24_576, _Limits(2000, 200), whole=True),
    _Model("llama2-70b-interactive", 24_576, _Limits(450, 40)),
    _Model("llama3_1-405b", 8_313, _Limits(6000, 175), whole=True),
    _Model("llama3_1-405b-interactive", 8_313, _Limits(4500, 80)),
    _Model("mixtral-8x7b", 15_000, _Limits(2000, 200), whole=True),
    _Model("deepseek-r1", 4_388, _Limits(2000, 80), whole=True),
    _Model("deepseek-r1-interactive", 4_388, _Limits(1500, 15)),
    _Model("gpt-oss-120b", 6_396, _Limits(3000, 80), num_accuracy=4_395),
    _Model("gpt-oss-120b-interactive", 6_396, _Limits(2000, 15), num_accuracy=4_395),
)
MODELS = tuple(model.name for model in _MODELS)
# Models of mlperf.conf whose settings are not in this table.
OTHERS = frozenset(
    {
        *("3d-unet", "bert", "dlrm", "dlrm-v2", "dlrm-v3", "gptj", "pointpainting"),
        *("qwen3-vl-235b-a22b", "resnet50", "retinanet", "rgat", "rnnt", "ssd-mobilenet"),
        *("stable-diffusion-xl", "wan-2.2-t2v-a14b", "whisper", "yolo"),
    }
)

# Of every model; times in ms.
_OF_ALL = {
    "*.*.qsl_rng_seed": 2085463073848966840,
    "*.*.sample_index_rng_seed": 2747215439041700203,
    "*.*.schedule_rng_seed": 16159082839903944936,
    "*.*.test05_qsl_rng_seed": 7975553102935885558,
    "*.*.test05_sample_index_rng_seed": 11403566307062068064,
    "*.*.test05_schedule_rng_seed": 15816800565822761601,
    "*.SingleStream.target_latency": 10,
    "*.SingleStream.target_latency_percentile": 90,
    "*.SingleStream.min_duration": 600_000,
    "*.MultiStream.target_latency": 80,
    "*.MultiStream.target_latency_percentile": 99,
    "*.MultiStream.samples_per_query": 8,
    "*.MultiStream.min_duration": 600_000,
    "*.MultiStream.min_query_count": 662,
    "*.Server.target_qps": 1.0,
    "*.Server.target_latency": 10,
    "*.Server.target_latency_percentile": 99,
    "*.Server.target_duration": 0,
    "*.Server.min_duration": 600_000,
    "*.Offline.target_qps": 1.0,
    "*.Offline.target_latency_percentile": 90,
    "*.Offline.min_duration": 600_000,
}
_SHOWN = ("target_latency", "ttft_latency", "tpot_latency", "min_duration", "min_query_count")


def audit_config(test: str, num_samples: int) -> str:
    """MLCommons' ``audit.config`` of a compliance test (``TEST06``) on data of ``num_samples``;
    empty for a test that is none."""
    match test:
        case "TEST06":
            return _AUDIT_CONFIG.format(logged=TEST06_QUERIES, queries=TEST06_QUERIES)
        case "TEST07":
            return _AUDIT_CONFIG.format(logged=num_samples, queries=num_samples) + _EVERY_SAMPLE
        case "TEST09":
            logged = max(_TEST09_LOGGED, num_samples)
            return _AUDIT_CONFIG.format(logged=logged, queries=num_samples) + _EVERY_SAMPLE
        case _:
            return ""


def parse(text: str) -> dict[str, str]:
    """The values of a settings file by ``model.Scenario.key``. A key's last value counts."""
    lines = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {words[0]: words[2] for words in lines if len(words) > 2 and words[1] == "="}


def find(values: Mapping[str, str], model: str, scenario: str, key: str) -> str | None:
    """The value that LoadGen takes: a wildcard is used only where nothing more exact is given."""
    places = (f"{model}.{scenario}", f"*.{scenario}", f"{model}.*", "*.*")
    return next((values[name] for at in places if (name := f"{at}.{key}") in values), None)


@functools.cache
def values() -> Mapping[str, str]:
    """The settings by ``model.Scenario.key``."""
    known: dict[str, float] = dict(_OF_ALL)
    for each in _MODELS:
        known |= {f"{each.name}.{key}": value for key, value in _of_model(each).items()}
    return {key: str(value) for key, value in known.items()}


def _of_model(model: _Model) -> dict[str, int]:
    known = {
        "*.performance_sample_count_override": model.num_samples,
        "*.sample_concatenate_permutation": 1,
        "*.use_token_latencies": 1,
    }
    if model.num_accuracy is not None:
        known["*.accuracy_sample_count_override"] = model.num_accuracy
    if model.whole:
        known["Offline.min_query_count"] = model.num_samples
    if model.server is not None:
        known["Server.target_latency"] = 0
        known["Server.ttft_latency"] = model.server.ttft_ms
        known["Server.tpot_latency"] = model.server.tpot_ms
    return known


def effective(plan: Plan) -> ScenarioSettings:
    """The plan's settings, completed by mlperf.conf's. Units are mlperf.conf's: ms."""
    scenario = plan.scenario.loadgen
    names = {key: f"{key}_ms" if key != "min_query_count" else key for key in _SHOWN}
    defaults = {
        name: int(value)
        for key, name in names.items()
        if (value := find(values(), plan.loadgen_name, scenario, key)) is not None
        and getattr(plan.loadgen_settings, name) is None
    }
    return msgspec.structs.replace(plan.loadgen_settings, **defaults)
