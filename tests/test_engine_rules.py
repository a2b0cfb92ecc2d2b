"""The rules on engines: what they report of their configuration, and of their work."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from jobs import Job, plan_for, write_plan
from loadgen_logs import smallest_valid
from records import PLAN, REPLICAS, completed, engine, performance, render

from sut.results import engine_rules
from sut.results.engine_report import EngineReport
from sut.results.judge import Verdict, judge_performance
from sut.results.mllog import read
from sut.results.work import ReplicaWork, Shortcuts

CACHING = "cache_config.enable_prefix_caching"


def judge(
    *reports: EngineReport, replicas: tuple[ReplicaWork, ...] = REPLICAS, official: bool = True
) -> Verdict:
    verdict = judge_performance(read(smallest_valid()), official=official)
    assert verdict.verdict == "VALID"
    return engine_rules.judged(verdict, PLAN, reports or (engine(),), replicas)


def test_a_planned_engine_meets_every_rule() -> None:
    verdict = judge(engine(), engine())
    assert verdict.verdict == "VALID" and verdict.official
    codes = {check.code for check in verdict.checks}
    assert {"prefix_caching", "speculative_decoding", "kv_transfer", "engine_settings"} <= codes
    assert {"cached_tokens", "draft_tokens", "engine_statistics"} <= codes


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (CACHING, True, "prefix_caching"),
        (CACHING, None, "prefix_caching"),
        ("speculative_config.method", "ngram", "speculative_decoding"),
        ("kv_transfer_config.kv_connector", "OffloadingConnector", "kv_transfer"),
        ("cache_config.kv_offloading_size", 4.0, "kv_transfer"),
        ("ec_transfer_config.ec_connector", "x", "kv_transfer"),
        ("model_config.dtype", "float16", "engine_settings"),
        ("model_config.max_model_len", 4096, "engine_settings"),
        ("scheduler_config.max_num_seqs", 64, "engine_settings"),
        ("scheduler_config.max_num_batched_tokens", None, "engine_settings"),
        ("parallel_config.tensor_parallel_size", 2, "engine_settings"),
        ("model_config.enforce_eager", True, "engine_settings"),
    ],
)
def test_one_engine_that_reports_another_setting_is_a_reason(
    name: str, value: object, code: str
) -> None:
    verdict = judge(engine(), engine(**{name: value}))
    assert [reason.code for reason in verdict.reasons] == [code]
    assert name in verdict.reasons[0].text and verdict.reasons[0].remedy


@pytest.mark.parametrize(
    ("name", "value", "before", "known"),
    [
        ("compilation_config.mode", "NONE", "VLLM_COMPILE", True),
        ("cache_config.cache_dtype", "fp8", "auto", True),
        ("model_config.quantization", "fp8", None, True),
        ("scheduler_config.async_scheduling", True, False, True),
        ("scheduler_config.scheduler_cls", "my.Scheduler", None, False),
        ("model_config.hf_overrides", {"num_hidden_layers": 1}, {}, False),
        ("model_config.hf_config.num_hidden_layers", 1, 32, False),
        ("load_config.load_format", "dummy", "auto", False),
        ("lora_config.max_loras", 1, None, False),
        ("additional_config", {"a": 1}, {}, False),
    ],
)
def test_a_changed_setting_that_no_rule_knows_is_not_official(
    name: str, value: object, before: object, known: bool
) -> None:
    changed = engine(PLAN, {name: before}, **{name: value})
    verdict = judge(engine(), changed)
    assert verdict.official == known and verdict.verdict == "VALID"
    because = engine_rules.not_official_because([changed])
    assert because == () if known else name in because[0]


def test_unknown_changes_and_quantized_files_are_not_official() -> None:
    unknown = msgspec.structs.replace(engine(), changed=None)
    assert not judge(unknown).official
    assert not judge(engine(**{"model_config.quantization": "fp8"})).official


def test_a_record_names_the_setting_that_is_not_official() -> None:
    plan = msgspec.structs.replace(PLAN, official=True, not_official_because=())
    phase = performance(smallest_valid(), engines=(engine(PLAN, {"load_config.x": 1}),))
    text = render(completed(phase, plan=plan))
    assert "**Not official** because" in text and "load_config.x: None, 1 by default" in text
    assert "MLPerf Inference v6.1, " in text and "LoadGen with the seeds of" in text


@pytest.mark.parametrize(
    ("shortcuts", "code"),
    [
        (Shortcuts(num_prefills=6, num_stats=9, cached_tokens=1), "cached_tokens"),
        (Shortcuts(num_prefills=6, num_stats=9, cache_hits=1), "cached_tokens"),
        (Shortcuts(num_prefills=6, num_stats=9, draft_tokens=1), "draft_tokens"),
        (Shortcuts(num_prefills=5, num_stats=9), "engine_statistics"),
        (Shortcuts(num_prefills=6), "engine_statistics"),
    ],
)
def test_what_an_engine_did_is_a_reason(shortcuts: Shortcuts, code: str) -> None:
    work = (msgspec.structs.replace(REPLICAS[0], shortcuts=shortcuts), REPLICAS[1])
    verdict = judge(replicas=work)
    assert [reason.code for reason in verdict.reasons] == [code]


@pytest.mark.parametrize(
    ("fault", "code"), [("cached@30", "cached_tokens"), ("draft@30", "draft_tokens")]
)
def test_a_run_whose_engine_takes_a_shortcut_is_invalid(
    tmp_path: Any, fault: str, code: str
) -> None:
    run_dir = write_plan(plan_for(1, f"engine.replay.faults=[{fault}]"), tmp_path / "run")
    with Job(run_dir, 1) as job:
        assert job.wait() == {0: 1}, job.output(0)
    (phase,) = job.record.phases
    assert [reason.code for reason in phase.verdict.reasons] == [code]
    shortcuts = phase.replicas[0].shortcuts
    assert getattr(shortcuts, code) == 1 and shortcuts.num_prefills == phase.replicas[0].samples


def test_every_engine_of_two_nodes_reports_itself(tmp_path: Any) -> None:
    plan = plan_for(2)
    run_dir = write_plan(plan, tmp_path / "run")
    with Job(run_dir, 2) as job:
        assert job.wait() == {0: 0, 1: 0}, job.output(0)
    (found,) = job.record.phases[0].engines
    assert found.parts == ((0, 0), (1, 0)) and found.changed == {}
    assert found.settings.items() >= engine_rules.planned(plan).items()
