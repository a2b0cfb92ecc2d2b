"""What sbatch gets from a site, on clusters that ask for other options or refuse some.

sbatch is a script here: it keeps the job's script, and refuses the options that the test names.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cli import ROOT, fast
from plans import plan_of
from test_ending import on_path, program, run_job

from sut import batch, cancel, submit
from sut.cluster import container, limits, sbatch
from sut.cluster.partitions import Machine
from sut.errors import EXIT_BAD_INPUT, EXIT_FAILED, Errors, InputError
from sut.launch import newrun, path_checks
from sut.plan import config, slurm_options
from sut.plan.benchmark import Preset
from sut.plan.plan import Plan
from sut.plan.site import SiteSlurm
from sut.results import record
from sut.rundir import RunDir

SITE = """\
name: fake
device: cpu
nodes:
  - name: n[001-004]
    gpus: 1
    cpus: [0]
interface: lo
run_root: {folder}/runs
cache: {folder}/cache
slurm: {{gres: gpu:a100, max_time_min: 240}}
"""
SBATCH = """#!/bin/bash
script="${@: -1}" folder=$(dirname "$0")
while read -r option; do
    [[ $option ]] && grep -qE -e "^#SBATCH $option(=|$)" "$script" &&
        { echo "sbatch: error: $option rejected by the submit plugin" >&2; exit 1; }
done <<<"$REFUSED"
cp "$script" "$folder/script.sh"
echo "Submitted batch job 4711"
"""
# As scontrol show hostnames does; it answers nothing else.
SILENT = "#!/bin/sh\nexit 1\n"


class Cluster:
    """A login node whose sbatch keeps the script that it gets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bin, self._monkeypatch = folder / "bin", monkeypatch
        self._bin.mkdir()
        for name in ("srun", "squeue", "sacct", "scontrol", "sinfo", "sacctmgr"):
            self.program(name, SILENT)
        self.program("sbatch", SBATCH)
        (folder / "site.yaml").write_text(SITE.format(folder=folder))
        monkeypatch.setenv("PATH", str(self._bin), prepend=os.pathsep)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(path_checks, "OWN_FOLDERS", ())  # tests work in /tmp
        self.refuses()

    def program(self, name: str, text: str) -> None:
        (self._bin / name).write_text(text)
        (self._bin / name).chmod(0o755)

    def refuses(self, *options: str) -> None:
        self._monkeypatch.setenv("REFUSED", "\n".join(options))

    def submit(self, *sets: str, nodes: str = "n001") -> int:
        changes = [word for each in sets for word in ("--set", f"site.slurm.{each}")]
        return submit.main(
            ["--config", "replay", "--site", "site.yaml", "--nodes", nodes, *changes]
        )

    def options(self) -> dict[str, str | None]:
        """What the script asks for; None for an option without a value."""
        text = (self._bin / "script.sh").read_text()
        lines = [shlex.split(line)[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
        pairs = (line.removeprefix("--").partition("=") for line in lines)
        return {name: value if equals else None for name, equals, value in pairs}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def plan(*sets: str, nodes: str = "all") -> Plan:
    changes = [f"site.slurm.{each}" for each in sets]
    return plan_of("replay", site="devcluster", nodes=nodes, sets=changes)


def options_of(*sets: str, nodes: str = "all") -> dict[str, object]:
    """The options that submitit gets, by sbatch's names."""
    given = sbatch.parameters(plan(*sets, nodes=nodes), RunDir("/runs/one"), sbatch.Submission())
    found = {name: value for name, value in given.items() if value is not None}
    return {
        name.replace("_", "-"): value
        for name, value in (found | given["additional_parameters"]).items()
    }


# Options that a cluster refuses.


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("mem", 'sbatch={mem: ""}'),
        ("mem", "sbatch={mem: null}"),
        ("mem", "memory_gib=null"),
        ("mem", "sbatch={mem-per-gpu: 60G}"),
        ("mem", "sbatch={mem_per_cpu: 4000}"),
        ("gres", 'sbatch={gres: ""}'),
        ("gres", "sbatch={--gres: null}"),
        ("gres", "gres=null"),
        ("gres", 'gres=""'),
        ("comment", "sbatch={comment: null}"),
        ("job-name", "sbatch={job_name: null}"),
        ("requeue", "sbatch={requeue: false}"),
        ("requeue", "sbatch={no-requeue: true}"),
    ],
)
def test_an_option_that_the_cluster_refuses_can_be_left_out(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], option: str, change: str
) -> None:
    cluster.refuses(f"--{option}")
    assert cluster.submit() == EXIT_FAILED
    assert f"--{option} rejected by the submit plugin" in capsys.readouterr().err
    assert cluster.submit(change) == 0
    assert option not in cluster.options()


@pytest.mark.parametrize(
    "change", ["partition=null", "account=", "qos=null", "constraint=", "exclusive=null"]
)
def test_null_and_an_empty_value_are_no_option(cluster: Cluster, change: str) -> None:
    assert cluster.submit(change) == 0
    assert change.partition("=")[0] not in cluster.options()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("gpus_per_node=a100", {"gpus-per-node": "a100:1"}),
        ("gpus_per_node=a100:4", {"gpus-per-node": "a100:1"}),
        ("gpus_per_node=gpu", {"gpus-per-node": "1"}),
        ("gpus_per_node=1", {"gpus-per-node": "1"}),
        ("gpus=a100", {"gpus": "a100:2"}),
        ("gpus=gpu:a100", {"gpus": "a100:2"}),
        ("sbatch={gpus: 8}", {"gpus": "8"}),
        ("sbatch={gpus_per_node: 'a100:4'}", {"gpus-per-node": "a100:4"}),
        ("sbatch={gpus-per-task: 1}", {"gpus-per-task": "1"}),
        ("sbatch={gres: 'gpu:a100:1,nvme:50'}", {"gres": "gpu:a100:1,nvme:50"}),
        ("gres=gpu", {"gres": "gpu:1"}),
    ],
)
def test_one_option_asks_for_the_gpus(change: str, expected: dict[str, str]) -> None:
    changes = [change] if change.startswith(("gres", "sbatch")) else ["gres=gpu", change]
    options = options_of(*changes)
    asking = ("gres", "gpus", "gpus-per-node", "gpus-per-task")
    assert {name: options[name] for name in asking if name in options} == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("gres=gpu", "6"),
        ("gres=gpu:a100", "a100:6"),
        ("gpus_per_node=a100", "a100:6"),
        ("gpus=a100", "a100:6"),
    ],
)
def test_unlike_nodes_ask_for_the_sum_of_their_gpus(change: str, expected: str) -> None:
    key, value = change.split("=")
    site = msgspec.convert({key: value}, SiteSlurm)
    errors = Errors()
    options = slurm_options.of_site(site, gpus=[4, 2], time_min=9, errors=errors)
    assert not errors and not options.gres
    assert options.sbatch == {"gpus": expected, "gres": ""}


def test_refuses_two_options_for_the_gpus() -> None:
    with pytest.raises(InputError, match=r"slurm\.gpus_per_node and slurm\.gres both ask"):
        plan("gpus_per_node=a30", "gres=gpu:a30")
    with pytest.raises(InputError, match=r"slurm\.gpus_per_node and slurm\.gpus both ask"):
        plan("gpus_per_node=a30", "gpus=a30", "gres=null")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{exclusive: user}", {"exclusive": "user"}),
        ("{exclusive: true}", {"exclusive": True}),
        ("{exclusive: null}", {}),
        ("{contiguous: true, licenses: bb:1}", {"contiguous": True, "licenses": "bb:1"}),
        ("{mem: 0}", {"mem": "0"}),
        ("{mem: 200G}", {"mem": "200G"}),
        ("{partition: a, account: b}", {"partition": "a", "account": "b"}),
    ],
)
def test_any_option_can_be_given(written: str, expected: dict[str, object]) -> None:
    found = options_of(f"sbatch={written}", "account=other")
    names = re.findall(r"(\w+):", written)
    assert {name: found[name] for name in names if name in found} == expected


@pytest.mark.parametrize(
    ("written", "expected"), [("{}", 2), ("{requeue: null}", 0), ("{no-requeue: true}", 0)]
)
def test_a_job_that_may_not_requeue_is_never_requeued(written: str, expected: int) -> None:
    asked = plan(f"sbatch={written}").slurm
    assert asked is not None and asked.max_requeues == expected


@pytest.mark.parametrize(("value", "asked"), [("true", True), ("user", "user"), ("false", None)])
def test_nodes_may_be_exclusive_in_sbatchs_ways(value: str, asked: object) -> None:
    assert options_of(f"exclusive={value}").get("exclusive") == asked


def test_an_unknown_option_is_sent_to_the_mapping() -> None:
    with pytest.raises(InputError, match=r"mem=0: unknown key \(options of sbatch .*slurm\.sbatch"):
        plan("mem=0")


def test_an_option_of_the_site_replaces_the_runs(cluster: Cluster) -> None:
    changes = "sbatch={comment: project 7, job-name: bench, cpus-per-task: 4}"
    assert cluster.submit(changes) == 0
    options = cluster.options()
    assert (options["comment"], options["job-name"]) == ("project 7", "bench")
    assert options["cpus-per-task"] == "4"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{nodes: 2}", r"slurm\.sbatch: nodes is set by the run itself\nhint: --nodes N"),
        ("{--time: 30}", r"--time is set by the run itself\nhint: --set site\.slurm\.time_min="),
        ("{open-mode: truncate}", "open-mode is set by the run itself\nhint: leave it out"),
        ("{p: gpu}", "p is not the long name of an sbatch option"),
        ("{'mem 0': x}", "mem 0 is not the long name"),
        ('{comment: "a\\nb"}', "comment is more than one line of text"),
    ],
)
def test_refuses_an_option_that_would_break_the_run(written: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(f"sbatch={written}")


# Generic resources as Slurm prints them.


@pytest.mark.parametrize(
    ("printed", "asked"),
    [
        ("gpu:a100:2", "gpu:a100:1"),
        ("gpu:a30:1(S:0)", "gpu:a30:1"),
        ("gpu:h100_nvl:8(S:0-1)", "gpu:h100_nvl:1"),
        ("gpu:a100:4(S:0,2)", "gpu:a100:1"),
        ("gpu:1g.5gb:7(S:0)", "gpu:1g.5gb:1"),
        ("gpu:nvidia_h100_80gb_hbm3:8(S:0-1)", "gpu:nvidia_h100_80gb_hbm3:1"),
        ("gpu:tesla_v100-sxm2-32gb:4", "gpu:tesla_v100-sxm2-32gb:1"),
        ("gpu:8(S:0-3)", "gpu:1"),
        ("gpu:a100:3(IDX:0,2-3)", "gpu:a100:1"),  # scontrol show node, GresUsed
        ("gpu:(null):3(IDX:0-2)", "gpu:1"),
        ("gpu:2", "gpu:1"),
        ("gpu", "gpu:1"),
        ("gres:gpu:a100:4", "gpu:a100:1"),
        ("gres/gpu:a100=4", "gpu:a100:1"),
    ],
)
def test_understands_the_gpus_that_slurm_prints(cluster: Cluster, printed: str, asked: str) -> None:
    assert cluster.submit(f"gres={printed}") == 0
    assert cluster.options()["gres"] == asked


@pytest.mark.parametrize(
    ("printed", "hint"),
    [
        ("gpu:a100:1,nvme:50", "gres=gpu:a100; to ask for all: --set 'site.slurm.sbatch={gres: \""),
        ("gpu:a100:1,nvme:50", '{gres: "gpu:a100:N,nvme:50"}\', N GPUs'),
        ("craynetwork:4,gpu:a100:4(S:0-3)", '{gres: "craynetwork:4,gpu:a100:N"}\', N GPUs'),
        ("gpu:a100:2,gpu:v100:2", "gres=gpu:a100 or --set site.slurm.gres=gpu:v"),
        ("(null)", "gres=gpu:a30 (list them: sinfo -o %G)"),
        ("shard:8", "gres=gpu:a30 (list"),
        ("gpu:a100:4(S:0-1),shard:a100:32(S:0-1)", '{gres: "gpu:a100:N,shard:a100:32"}\', N GPUs'),
        ("hbm:16G,gpu:4", '{gres: "hbm:16G,gpu:N"}\', N GPUs'),
        ("gpu:A100:4(S:0-1),ls", '{gres: "gpu:A100:N,ls"}\', N GPUs'),  # one without a number
        ("gpu:nvidia_a100-sxm4-80gb:8(S:4-7),tmp:28000G", "gres=gpu:nvidia_a100-sxm4-80gb; to"),
        (  # of Slurm's own documentation
            "gpu:tesla:2,gpu:kepler:2,mps:400,bandwidth:lustre:no_consume:4G",
            "gres=gpu:tesla or --set site.slurm.gres=gpu:kepler; to ask",
        ),
        (
            "gpu:h100:6(S:0-1),gpu:1g.10gb:28(S:0-1)",
            "gres=gpu:h100 or --set site.slurm.gres=gpu:1g",
        ),
        ("a100", "gres=gpu:a30 (list"),
        ("gpu:a100:no_consume:2", "gres=gpu:a30 (list"),
    ],
)
def test_refuses_other_resources_with_the_right_form(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], printed: str, hint: str
) -> None:
    assert cluster.submit(f"gres={printed}") == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert f"error: slurm.gres is {printed}: it must name the GPUs of a node" in error
    assert hint in error.partition("\nhint: --set site.slurm.")[2]


def test_refuses_fewer_gpus_than_the_run_uses() -> None:
    changes = ("site.nodes=[{name: jw2, gpus: 4, cpus: [0]}]", "site.slurm.gres=gpu:a30:2")
    with pytest.raises(InputError, match="gres is gpu:a30:2, but the run uses 4 GPUs of each node"):
        plan_of("replay", site="devcluster", nodes="jw2", sets=changes)
    enough = (changes[0], "site.slurm.gres=gpu:a30:4")
    assert plan_of("replay", site="devcluster", nodes="jw2", sets=enough)


# Hostlists.


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("all", "n001,n002,n003,n004"),
        ("n[001-002]", "n001,n002"),
        ("n[001,003-004]", "n001,n003,n004"),
        ("n004,n002", "n002,n004"),
    ],
)
def test_nodes_of_a_hostlist_in_the_site(cluster: Cluster, nodes: str, names: str) -> None:
    assert cluster.submit(nodes=nodes) == 0
    options = cluster.options()
    assert options["nodelist"] == names
    assert options["nodes"] == str(len(names.split(",")))


def test_an_unquoted_hostlist_in_braces_is_refused_with_the_right_form(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("name: x\nslurm: {}\nnodes:\n  - {name: n[001-004], gpus: 1}\n")
    with pytest.raises(InputError, match=r"site\.yaml:4: invalid YAML: .*\nhint: quote .*'n\[0"):
        config.load_site(str(file))


# What the nodes have.


def lacking(change: str, *machines: Machine, nodes: str = "jw2") -> str:
    errors = Errors()
    limits.check_machines(plan(change, nodes=nodes), machines, errors)
    return "; ".join(map(str, errors))


@pytest.mark.parametrize(
    ("constraint", "missing"),
    [
        ("a100", ""),
        ("a100&hbm80g", "hbm80g"),
        ("a100&ib", ""),
        ("h100&hbm80g", "h100, hbm80g"),
        ("a100&nvme", ""),  # no node lists it: a plugin of the cluster may handle it
        ("h100|v100", ""),  # a choice: Slurm decides
        ("[rack1*2&rack2*4]", ""),
    ],
)
def test_names_the_features_that_a_node_lacks(constraint: str, missing: str) -> None:
    features = {"jw2": {"a100", "ib"}, "jw3": {"a100", "ib", "h100", "hbm80g", "v100"}}
    machines = [
        Machine(name=name, cpus=8, memory_mib=64_000, gres="gpu:a30:1", features=frozenset(has))
        for name, has in features.items()
    ]
    found = lacking(f"constraint='{constraint}'", *machines, nodes="all")
    text = f"node jw2 has no feature {missing} (slurm.constraint); it has a100, ib"
    assert (text in found) is bool(missing) and bool(found) is bool(missing)
    assert lacking(f"constraint='{constraint}'", *machines, nodes="1") == ""  # Slurm takes jw3


@pytest.mark.parametrize(
    "change", ["gres=gpu:h100", "sbatch={gpus-per-node: 'h100:1'}", "sbatch={gres: 'gpu:a30:4'}"]
)
def test_names_the_gpus_that_a_node_lacks(change: str) -> None:
    machine = Machine(name="jw2", cpus=8, memory_mib=64_000, gres="gpu:a30:1(S:0)")
    assert "node jw2 has gres gpu:a30:1(S:0); the run asks for gpu:" in lacking(change, machine)
    assert lacking("sbatch={gres: 'gpu:a30:1,tmpdisk:50'}", machine) == ""


@pytest.mark.parametrize(("gres", "listed"), [("gpu:a30:2(S:0)", ""), ("gpu:a30:3", "2")])
def test_unlike_nodes_must_give_all_their_gpus(gres: str, listed: str) -> None:
    unlike = plan_of(
        "replay",
        site="devcluster",
        nodes="all",
        sets=["site.nodes=[{name: jw2, gpus: 1}, {name: jw3, gpus: 2}]", "site.device=cuda"],
    )
    machines = [
        Machine(name=name, cpus=8, memory_mib=64_000, gres=has)
        for name, has in {"jw2": "gpu:a30:1", "jw3": gres}.items()
    ]
    errors = Errors()
    limits.check_machines(unlike, machines, errors)
    text = "; ".join(map(str, errors))
    assert bool(text) is bool(listed)
    assert not listed or "node jw3 has gres gpu:a30:3; on nodes with" in text
    assert not listed or f"the site lists {listed}" in text


# Another cluster.


def test_every_command_names_the_other_cluster(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "asked"
    row = "RUNNING|None|||n001|"
    for name, answer in {"squeue": f"echo '{row}'", "scancel": ":", "scontrol": "exit 1"}.items():
        cluster.program(name, f'#!/bin/sh\necho "{name} $*" >>{log}\n{answer}\n')
    assert cluster.submit("clusters=second", nodes="1") == 0
    assert cluster.options()["clusters"] == "second"
    assert cancel.main(["latest", "--root", "runs"]) == 0
    asked = log.read_text().splitlines()
    assert "scancel --clusters=second 4711" in asked
    assert any("show partition" in line for line in asked)
    of_job = [line for line in asked if "4711" in line or "show partition" in line]
    assert all("--clusters=second" in line for line in of_job)


def test_refuses_several_clusters() -> None:
    with pytest.raises(InputError, match=r"clusters is a,b: a run needs one cluster"):
        plan("clusters='a,b'")


# Commands before the run.


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)


def after(*setup: str) -> subprocess.CompletedProcess[str]:
    asked = plan().slurm
    assert asked is not None
    return shell(
        "\n".join([*sbatch.setup(msgspec.structs.replace(asked, setup=setup)), 'echo "$A $B"'])
    )


def test_setup_runs_in_the_shell_that_starts_the_run() -> None:
    done = after("export A='1 2'", "f() {\n  B=$1\n}", "f 3", ": # nothing", "true; B=${B}4")
    assert (done.stdout, done.stderr, done.returncode) == ("1 2 34\n", "", 0)


@pytest.mark.parametrize("command", ["module load a/1.2", "false", "true && (exit 7)"])
def test_a_setup_command_that_fails_ends_the_job(command: str) -> None:
    done = after("module() { return 1; }", command, "A=started")
    assert (done.stdout, done.returncode) == ("", EXIT_BAD_INPUT)
    assert done.stderr == f"error: slurm.setup failed: {command}\n"


def test_setup_comes_before_srun_in_each_kind_of_job(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster.submit('setup=["export A=set"]') == 0
    lines = (tmp_path / "bin" / "script.sh").read_text().splitlines()
    setup = next(i for i, line in enumerate(lines) if line.startswith("eval 'export A=set'"))
    assert lines.index("trap 'export SUT_SIGNALLED=SIGTERM' TERM") < setup
    assert setup < next(i for i, line in enumerate(lines) if line.startswith("srun "))
    command = batch.after_setup(plan('setup=["export A=set"]'), ["sh", "-c", "echo $A $0", "x y"])
    assert subprocess.run(command, capture_output=True, text=True).stdout == "set x y\n"
    assert batch.after_setup(plan(), ["srun", "x"]) == ["srun", "x"]


# The command that continues a run.


def continuing(*sets: str, nodes: str = "jw2") -> list[str]:
    return shlex.split(sbatch.continuing(plan(*sets, nodes=nodes), RunDir("/runs/a run")))


def test_continuing_uses_a_script_where_its_options_are_allowed() -> None:
    words = continuing("memory_gib=0", "gres=gpu", "sbatch={reservation: r, contiguous: true}")
    last = ["--reservation=r", "--contiguous", f"{ROOT}/slurm/single.sh", "/runs/a run"]
    assert words == ["sbatch", "--nodelist=jw2", *last]
    assert "--nodes=1" not in continuing() and "--mem=8G" in continuing()


def test_a_run_in_an_image_continues_with_the_hosts_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "apptainer", "printenv APPTAINERENV_SUT_SCRIPTS; exit 1")
    program(tmp_path, "scontrol", 'echo "$3"')
    (tmp_path / "an.sif").touch()
    sets = (f"site.container.image={tmp_path / 'an.sif'}", f"site.cache={tmp_path / 'cache'}")
    run_dir = newrun.create(plan_of("replay", site="devcluster", nodes="jw2", sets=sets), tmp_path)
    folder = run_job(run_dir, on_path(tmp_path)).stdout.strip()
    assert folder == f"{ROOT}/slurm"
    monkeypatch.setattr(sbatch, "_FOLDER", Path("/opt/slurm"))  # as in an image
    monkeypatch.setenv(sbatch.SCRIPTS, folder)
    assert f"{ROOT}/slurm/single.sh" in continuing()
    monkeypatch.delenv(sbatch.SCRIPTS)
    assert continuing()[-1].startswith("--wrap=")


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("memory_gib=null", "--mem"),
        ("gpus_per_node=a30", "--gres"),
        ("sbatch={requeue: ''}", "--requeue"),
    ],
)
def test_continuing_needs_no_script_with_a_refused_option(change: str, refused: str) -> None:
    words = continuing(change, "gres=gpu") if "gpus" in change else continuing(change)
    assert words[0] == "sbatch" and not [word for word in words if word.startswith(refused)]
    assert {"--nodes=1", "--ntasks-per-node=1", "--signal=USR2@120"} <= set(words)
    assert words[-1] == "--wrap=exec python3 -m sut.batch '/runs/a run'"


# The program that runs the image.


@pytest.mark.parametrize(
    ("command", "prefix"),
    [
        ("apptainer", "APPTAINERENV_"),
        ("singularity", "SINGULARITYENV_"),
        ("/opt/singularity/4.1/bin/singularity", "SINGULARITYENV_"),
        ("/opt/apptainer/bin/apptainer", "APPTAINERENV_"),
        ("singularity-ce", "SINGULARITYENV_"),
    ],
)
def test_the_container_command_gets_its_own_variables(
    tmp_path: Path, command: str, prefix: str
) -> None:
    changed = plan_of("replay", site="devcluster", sets=[f"site.container.command={command}"])
    words = container.argv(changed, tmp_path, Path("x.sif"), tmp_path, ["true"])
    assert words[:3] == [command, "--silent", "exec"]
    host = {"SUT_NODES": "jw2", "SINGULARITY_TMPDIR": "/scratch", "SINGULARITY_BIND": "/x"}
    inside = container.environment(changed, host, "jw2")
    assert inside[f"{prefix}SUT_NODES"] == "jw2"
    assert inside["SINGULARITY_TMPDIR"] == "/scratch" and "SINGULARITY_BIND" not in inside
    other = {"APPTAINERENV_": "SINGULARITYENV_", "SINGULARITYENV_": "APPTAINERENV_"}[prefix]
    assert not [name for name in inside if name.startswith(other)]


# What SingularityCE does as far as the run can see: a new environment from its own variables.
SINGULARITY = """#!/bin/bash
inside=()
for name in ${!SINGULARITYENV_@}; do inside+=("${name#SINGULARITYENV_}=${!name}"); done
until [[ $1 == *.sif ]]; do shift; done
exec env -i PATH="$PATH" PYTHONPATH="$PYTHONPATH" HOME="$HOME" SINGULARITY_CONTAINER="$1" \\
    "${inside[@]}" "$PYTHON" "${@:3}"
"""


def test_a_run_in_singularity_gets_its_job_and_records_the_image(tmp_path: Path) -> None:
    image = tmp_path / "an.sif"
    image.touch()
    program(tmp_path, "scontrol", 'echo "$3"')
    (tmp_path / "bin/singularity").write_text(SINGULARITY)
    (tmp_path / "bin/singularity").chmod(0o755)
    sets = [f"site.container.image={image}", "site.container.command=singularity"]
    sets += [f"site.cache={tmp_path / 'cache'}", *fast()[5::2]]
    run_dir = newrun.create(
        plan_of("replay", site="devcluster", nodes="jw2", sets=sets, preset=Preset.QUICK), tmp_path
    )
    done = run_job(run_dir, on_path(tmp_path, PYTHON=sys.executable))
    found = record.read(run_dir.record)
    assert (found.status, found.attempts[-1].job_id) == ("completed", "7"), done.stderr
    assert found.environment is not None and found.environment.container == str(image)


# Plans of earlier records.


def test_an_option_that_is_not_used_keeps_the_plans_digest() -> None:
    usual = plan()
    assert usual.slurm is not None and usual.container is not None
    content = msgspec.to_builtins(usual)
    assert "setup" in content["slurm"] and "command" in content["container"]
    setup = msgspec.structs.replace(usual.slurm, setup=("true",))
    assert msgspec.structs.replace(usual, slurm=setup).digest() != usual.digest()
    other = msgspec.structs.replace(usual.container, command="singularity")
    assert msgspec.structs.replace(usual, container=other).digest() != usual.digest()
    priced = msgspec.structs.replace(usual, node_prices={"jw2": 2.0})
    assert priced.digest() == usual.digest()
