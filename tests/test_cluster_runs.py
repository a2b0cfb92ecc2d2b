"""Runs on the test cluster: real Slurm, real Apptainer, an ordinary user, two nodes."""

from __future__ import annotations

import re
import shlex

import pytest
from cluster.cluster import Cluster
from on_cluster import (
    ClusterRun,
    latest,
    leftovers,
    replay,
    sbatch,
    submit,
    submitted_and_awaited,
    until,
)

from sut.results import record

BOTH = ("--nodes", "jw[2-3]")


def test_both_nodes_are_one_system_under_one_loadgen(idle: Cluster) -> None:
    done = submitted_and_awaited(idle, *replay(3), *BOTH)
    assert done.returncode == 0, done.stdout + done.stderr
    record = latest(idle)
    (phase,) = record.phases
    assert record.verdict == "VALID" and phase.loadgen_errors == ()
    assert [work.node for work in phase.replicas] == ["jw2", "jw3"]
    assert all(0.4 < work.share < 0.6 for work in phase.replicas)
    assert record.environment.image_sha256 is not None
    assert len(list((idle.home() / "runs/latest/loadgen").iterdir())) == 1
    assert leftovers(idle) == []


@pytest.mark.parametrize("program", ["APPTAINER", "SINGULARITY"])
def test_a_container_gets_no_settings_of_the_caller(idle: Cluster, program: str) -> None:
    planted = f"{program}ENV_VLLM_PLANTED=1 {program}_BIND=/no/such/folder"
    done = idle.run(f"{planted} python -m sut.submit --wait {shlex.join(replay(1))}", timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VLLM_PLANTED" not in latest(idle).environment.variables


@pytest.mark.parametrize(("busy", "free"), [("jw2", "jw3"), ("jw3", "jw2")])
def test_a_run_goes_to_the_free_node(idle: Cluster, busy: str, free: str) -> None:
    job = idle.run(f"sbatch --parsable --exclusive --nodelist={busy} --wrap 'sleep 300'").stdout
    until(lambda: idle.run(f"squeue -h -j {job.strip()} -o %T").stdout.strip() == "RUNNING")
    run = submit(idle, *replay(1))
    assert run.end() == "COMPLETED"
    record = run.record()
    assert [node.name for node in record.plan.candidates] == ["jw2", "jw3"]
    assert record.attempts[-1].nodes == (free,)
    assert [work.node for work in record.phases[0].replicas] == [free]


@pytest.mark.parametrize(("script", "num_replicas"), [("single", 1), ("multi", 2)])
def test_a_batch_script_exits_with_its_runs_code(
    idle: Cluster, script: str, num_replicas: int
) -> None:
    script = f"/opt/mlperf-sut/slurm/{script}.sh"
    assert sbatch(idle, f"{script} --config replay --preset quick").exit_code == 1
    assert latest(idle).verdict == "INVALID"
    done = sbatch(idle, f"{script} --config replay")
    assert done.exit_code == 0, done.output
    assert latest(idle).verdict == "VALID" and len(latest(idle).plan.replicas) == num_replicas
    again = sbatch(idle, f"{script} runs/{latest(idle).run_id}")
    assert again.exit_code == 2 and "is complete" in again.output


@pytest.mark.long
def test_two_nodes_give_twice_the_throughput_of_one(idle: Cluster) -> None:
    # Slow engines: their service model limits them, not this machine's two cores.
    slow = ["--config", "replay", "--scenario", "offline"]
    for change in (
        "scenarios.offline.target_qps=40",
        # 62.5 batches: a few samples more on one of two nodes do not cost it one batch more.
        "scenarios.offline.min_query_count=1000",
        "generation.min_tokens=64",  # answers of equal length: no tail
        "scenarios.offline.min_duration_ms=1000",
        "engine.max_num_seqs=16",
        "engine.replay.step_base_us=5000",
    ):
        slow += ["--set", change]
    speeds = []
    for nodes in ("jw2", "jw2,jw3"):
        done = submitted_and_awaited(idle, *slow, "--nodes", nodes)
        assert done.returncode == 0, done.stdout + done.stderr
        speeds.append(float(latest(idle).phases[0].loadgen["result_tokens_per_second"] or 0))
    assert speeds[1] / speeds[0] >= 1.95, speeds


@pytest.mark.long
def test_two_jobs_on_shared_nodes_do_not_collide(idle: Cluster) -> None:
    site = "name: shared\nnodes: [{name: jw2}, {name: jw3}]\ninterface: eth0\n"
    site += "run_root: ~/runs\ncache: ~/.cache/mlperf-sut\nslurm: {memory_gib: 2, load_min: 3}\n"
    site += "container: {image: /opt/images/mlperf-sut-cpu.sif}\n"
    (idle.home() / "shared.yaml").write_text(site)
    arguments = [*replay(5), "--site", "shared.yaml", "--nodes", "all"]
    runs = [submit(idle, *arguments) for _ in range(2)]
    for run in runs:
        until(run.has_measured)
    assert {run.state() for run in runs} == {"RUNNING"}
    assert [run.end() for run in runs] == ["COMPLETED", "COMPLETED"]
    assert {run.record().verdict for run in runs} == {"VALID"}


@pytest.mark.long
def test_refuses_a_run_directory_in_use(idle: Cluster) -> None:
    run = submit(idle, *replay(100), "--nodes", "jw2", "--set", "site.slurm.memory_gib=1")
    until(run.has_measured)
    beside = "--nodelist=jw2 --gres=none --mem=1G"
    second = sbatch(idle, f"{beside} /opt/mlperf-sut/slurm/single.sh {run.name}")
    assert second.exit_code == 2
    by = rf"job {run.job_id}(, .* is running| is RUNNING)"
    in_use = rf"the run directory is in use \({run.name}\): {by}"
    assert re.search(in_use, second.output)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["power", "link"])
def test_a_run_continues_by_phase_after_node_loss(idle: Cluster, how: str) -> None:
    run = submit(idle, *replay(8), "--mode", "all", *BOTH)
    until(lambda: run.has_measured("accuracy"))
    done_before = run.dir.samples("performance").read_text()
    if how == "power":
        idle.power_off("jw3")
    else:
        idle.cut_link("jw3")
    until(lambda: run.dir.record.is_file() and run.record().failure is not None, 60)
    until(lambda: run.record().status == "failed" and _code(run) == "node_lost", 60)
    assert run.record().failure.node == "jw3"  # type: ignore[union-attr]
    if how == "power":
        idle.power_on("jw3")
    else:
        idle.restore_link("jw3")
    until(lambda: run.dir.record.is_file() and run.record().status == "completed", 180)
    assert run.end() == "COMPLETED"
    record = run.record()
    assert record.verdict == "VALID"
    assert [phase.name for phase in record.phases] == [test.name for test in record.plan.tests]
    first, *_, last = record.attempts
    assert first.failure is not None and first.failure.code == "node_lost"
    assert last.status == "completed"
    assert run.dir.samples("performance").read_text() == done_before
    assert leftovers(idle) == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_continues_without_a_lost_node(idle: Cluster) -> None:
    run = submit(idle, *replay(40), *BOTH, "--on-replica-loss", "continue")
    until(run.has_measured)
    idle.power_off("jw3")
    run.end(240)
    record = run.record()
    assert record.status == "completed" and record.verdict == "INVALID"
    assert len(record.attempts) == 1
    (phase,) = record.phases
    (loss,) = phase.losses
    assert (loss.replica, loss.nodes, loss.code) == (1, ("jw3",), "node_lost"), loss
    assert phase.dispatcher is not None and phase.dispatcher.failed == 0
    assert phase.survivors is not None and phase.survivors.samples > 0
    idle.power_on("jw3")
    idle.wait_until_idle()
    assert leftovers(idle) == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_engine_on_another_node_returns(idle: Cluster) -> None:
    run = submit(idle, *replay(20), *BOTH, "--on-replica-loss", "restart")
    until(run.has_measured)
    (engine,) = [each for each in idle.processes("jw3") if "replay_engine" in each.command]
    idle.run(f"kill -KILL {engine.pid}", node="jw3", user="root")
    run.end(240)
    assert run.exit_code() == "1:0"
    (phase,) = run.record().phases
    (loss,) = phase.losses
    assert (loss.nodes, loss.code, loss.starts) == (("jw3",), "engine_died", 1), loss
    assert loss.returned_s is not None and run.record().verdict == "INVALID"
    assert leftovers(idle) == []


@pytest.mark.long
def test_a_preempted_job_repeats_its_phase(idle: Cluster) -> None:
    low = submit(idle, *replay(15), "--nodes", "jw2", "--set", "site.slurm.qos=low")
    until(low.has_measured)
    idle.run("sbatch --qos=high --nodelist=jw2 --exclusive --wrap 'sleep 1'")
    until(lambda: low.dir.record.is_file() and low.record().failure is not None, 60)
    until(lambda: low.state() == "COMPLETED", 180)
    record = low.record()
    assert record.verdict == "VALID" and len(record.attempts) == 2
    assert record.attempts[0].failure is not None
    assert record.attempts[0].failure.code == "cancelled"
    assert [path.name for path in sorted((low.dir.root / "loadgen").iterdir())] == [
        "performance",
        "performance.interrupted-1",
    ]


@pytest.mark.long
def test_a_run_is_truncated_near_the_wall_limit(idle: Cluster) -> None:
    changes = ["--set", "site.slurm.signal_delay_s=30", "--set", "site.slurm.load_min=1"]
    run = submit(idle, *replay(100), *BOTH, *changes)
    until(run.has_measured)
    shorter = idle.run(f"scontrol update JobId={run.job_id} TimeLimit=1")
    assert shorter.returncode == 0, shorter.stderr
    assert run.end(180) == "FAILED" and run.exit_code() == "3:0"
    record = run.record()
    assert record.status == "truncated" and record.verdict is None
    assert record.interrupted is not None and record.interrupted.dispatcher.completed > 0
    assert re.match(r"# TRUNCATED", run.dir.report.read_text())
    assert (run.dir.loadgen("performance") / "mlperf_log_detail.txt").stat().st_size > 0
    assert_drawn(run)
    assert leftovers(idle) == []


def test_scancel_leaves_a_record_and_no_process(idle: Cluster) -> None:
    run = submit(idle, *replay(100), *BOTH)
    until(run.has_measured)
    idle.run(f"scancel {run.job_id}")
    assert run.end() == "CANCELLED"
    until(lambda: leftovers(idle) == [], 30)
    failure = run.record().failure
    assert failure is not None and failure.code == "cancelled"
    assert "sbatch --nodelist=jw[2-3] --gres=gpu:a30:1" in failure.message.replace("'", "")
    assert failure.message.endswith(f"slurm/multi.sh {run.name}")
    assert_drawn(run)


def assert_drawn(run: ClusterRun) -> None:
    """Whether the report has its plots: the signal takes the image away from the run in it."""
    page = run.dir.report_html.read_text()
    assert "<svg" in page and "no plots" not in page
    assert "Incomplete report" not in run.dir.report.read_text()


def test_a_node_without_the_image_is_recorded(idle: Cluster) -> None:
    image = "/tmp/none.sif"
    changes = ["--set", f"site.container.image={image}", "--set", "site.node_local=[/tmp]"]
    run = submit(idle, *replay(3), *BOTH, *changes)
    assert run.end() == "FAILED"  # srun ends the slower node, so its exit code varies
    record = run.record()
    assert record.failure is not None and f"{image}: No such file" in record.failure.message
    assert [attempt.job_id for attempt in record.attempts] == [run.job_id]
    assert run.dir.report_html.is_file()


def test_a_job_cancelled_while_pending_is_recorded(idle: Cluster) -> None:
    run = submit(idle, *replay(3), *BOTH, "--begin", "now+1hour")
    done = idle.run(f"python -m sut.cancel {run.name}")
    assert done.returncode == 0, done.stderr
    failure = run.record().failure
    assert failure is not None and failure.code == "cancelled"
    assert "before it started" in failure.message and run.dir.report_html.is_file()
    shown = idle.run(f"python -m sut.watch --once {run.name}")
    assert "finished: FAILED" in shown.stdout, shown.stdout + shown.stderr


def test_a_run_directory_may_contain_spaces_and_quotes(idle: Cluster) -> None:
    root = '/home/bench/it\'s "my" runs, all'
    done = submitted_and_awaited(
        idle, *replay(2), *BOTH, "--set", f"site.run_root={root!r}".replace("\\'", "''")
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_a_real_model_runs_on_both_nodes(idle: Cluster) -> None:
    done = submitted_and_awaited(idle, "--scenario", "offline", *BOTH, timeout_s=400)
    assert done.returncode == 0, done.stdout + done.stderr
    (phase,) = latest(idle).phases
    assert latest(idle).verdict == "VALID"
    assert all(0.4 < work.share < 0.6 for work in phase.replicas)
    assert leftovers(idle) == []


def _code(run: ClusterRun) -> str:
    failure = run.record().failure
    return failure.code if failure else ""


@pytest.mark.long
def test_nightly_jobs_compare_and_never_overlap(idle: Cluster) -> None:
    command = "sbatch --parsable /opt/mlperf-sut/slurm/nightly.sh --config replay"
    jobs = [idle.run(command).stdout.strip() for _ in range(2)]
    assert "Dependency" in idle.run(f"squeue -h -j {jobs[1]} -o %r").stdout
    for job in jobs:
        until(lambda job=job: "COMPLETED" in idle.run(f"sacct -nXP -j {job} -o state").stdout, 120)
    output = (idle.home() / f"slurm-{jobs[1]}.out").read_text()
    assert "VALID" in output and "earlier" in output


@pytest.mark.long
@pytest.mark.timeout(400)
def test_every_scrontab_job_makes_a_run(idle: Cluster) -> None:
    table = "#SCRON --job-name=sut-nightly --nodes=2 --ntasks-per-node=1 --gres=gpu:1 --mem=0 "
    table += "--time=04:00:00\n#SCRON --signal=USR2@120 --dependency=singleton --open-mode=append\n"
    table += "* * * * * cd /opt/mlperf-sut && bash slurm/nightly.sh --config replay\n"
    idle.run(f"printf %s {shlex.quote(table)} | scrontab -")
    runs = idle.home() / "runs"
    before = {path.name for path in runs.iterdir()} if runs.is_dir() else set()

    def completed() -> list[str]:
        records = {path.parent.name: path for path in runs.glob("*-replay-*/record.json")}
        mine = [path for name, path in records.items() if name not in before]
        return [path.parent.name for path in mine if record.read(path).status == "completed"]

    until(lambda: len(completed()) >= 2, 300)
