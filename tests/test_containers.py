"""Building images: refusals and contents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli import ROOT
from cluster.cluster import Cluster

from sut.inputs import model

BUILD = ROOT / "containers" / "build.sh"
IMAGE = "/opt/images/mlperf-sut-cpu.sif"


def test_refuses_to_build_in_a_job() -> None:
    done = build("cpu", SLURM_JOB_ID="7")

    assert done.returncode == 1
    assert "cannot be built inside a job" in done.stderr


def test_a_cuda_image_requires_its_base() -> None:
    done = build("cuda")

    assert done.returncode == 1
    assert "skopeo inspect" in done.stderr


@pytest.mark.parametrize(
    ("base", "error", "hint"),
    [
        ("/no/such.sif", "no such base: /no/such.sif", "give a SIF"),
        (
            "docker://vllm/vllm-openai@sha256:DIGEST",
            "has no digest of 64 hexadecimal digits",
            "skopeo inspect --format '{{.Digest}}' docker://docker.io/vllm/vllm-openai\n",
        ),
        ("docker://vllm/vllm-openai:v0.32.0", "has no digest", "/vllm/vllm-openai:v0.32.0\n"),
    ],
)
def test_names_a_base_that_cannot_be_used(base: str, error: str, hint: str, tmp_path: Path) -> None:
    program = tmp_path / "apptainer"
    program.write_text("#!/bin/sh\necho FATAL >&2\nexit 255\n")
    program.chmod(0o755)
    done = build("cuda", "--base", base, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert error in done.stderr and hint in done.stderr and "FATAL" not in done.stderr


def test_a_wheelhouse_needs_pip(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$2" != pip ] || { echo "No module named pip" >&2; exit 1; }\n')
    python.chmod(0o755)
    done = subprocess.run(
        [ROOT / "containers/wheelhouse.sh", "cpu", tmp_path / "wheels"],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1 and "No module" not in done.stderr
    assert f"error: {python} has no pip" in done.stderr and "hint: make env" in done.stderr
    assert not (tmp_path / "wheels").exists()


@pytest.mark.parametrize("words", [[], ["rocm"], ["cpu", "--fast", "1"], ["cpu", "--only", "x"]])
def test_refuses_unknown_arguments(words: list[str]) -> None:
    done = build(*words)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")


def test_the_source_hash_covers_the_images_files(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", "--shared", ROOT, checkout], check=True)
    before = sources(checkout)

    (checkout / "docs" / "design.md").write_text("other")
    (checkout / "sut" / "_core.so").write_text("compiled")
    assert sources(checkout) == before
    (checkout / "sut" / "new.py").touch()
    assert sources(checkout) != before


def test_lists_only_missing_packages(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(
        "# made by\nno-such==1 \\\n    --hash=x\n    # via y\nPyYAML==0 \\\n    --hash=z\n"
    )
    script = ROOT / "containers" / "missing.py"
    done = subprocess.run([sys.executable, script, lock], capture_output=True, text=True)

    assert done.stdout == "no-such==1 \\\n    --hash=x\n"


def test_the_image_has_its_tools_and_labels(cluster: Cluster) -> None:
    inside = f"apptainer exec --containall --workdir $(mktemp -d) {IMAGE}"

    tools = cluster.run(f"{inside} which lscpu g++ nvidia-smi")
    assert tools.stdout.split() == ["/usr/bin/lscpu", "/usr/bin/g++"]
    converted = cluster.run(
        f"{inside} python3 -c 'from sut.inputs import model; print(model.embedded())'"
    )
    assert converted.stdout == f"/opt/mlperf-sut/assets/{model.CONVERTED}\n", converted.stderr
    articles = cluster.run(
        f"{inside} python3 -c 'from sut.inputs import wheels; wheels.news_articles()'"
    )
    assert articles.returncode == 0, articles.stderr
    labels = cluster.run(f"apptainer inspect {IMAGE}").stdout
    assert f"mlperf-sut.sources: {sources(ROOT)}" in labels
    assert "mlperf-sut.version.vllm: 0.32.0" in labels
    assert "org.opencontainers.image.revision: " in labels


def build(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"}
    return subprocess.run(
        [BUILD, *words], env={**outside, **environment}, capture_output=True, text=True
    )


def sources(checkout: Path) -> str:
    command = [checkout / "containers" / "build.sh", "--print-sources"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def exported(folder: Path) -> Path:
    """What an image is made of, without its commit."""
    folder.mkdir()
    parts = (
        "CMakeLists.txt LICENSE README.md pyproject.toml setup.py configs containers requirements"
    )
    for part in (*parts.split(), "tools"):
        of = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        of(ROOT / part, folder / part)
    for part in ("csrc", "sut"):
        (folder / part).mkdir()
    return folder


def git(checkout: Path, *words: str) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", checkout, *author, *words], check=True, capture_output=True)


def test_a_users_own_site_is_not_a_source_of_the_image(tmp_path: Path) -> None:
    checkout = exported(tmp_path / "checkout")
    git(checkout, "init")
    git(checkout, "add", ".")
    before = sources(checkout)
    site = checkout / "configs" / "sites" / "my [new] site.yaml"
    site.write_text("name: new\n")
    (checkout / "configs" / "sites" / "mine.yaml").write_text("name: mine\n")  # ignored by git
    assert sources(checkout) == before
    git(checkout, "add", str(site))
    assert sources(checkout) != before


def test_every_site_outside_a_checkout_is_a_source_of_the_image(tmp_path: Path) -> None:
    git(tmp_path, "init")  # of something else
    folder = exported(tmp_path / "folder")
    before = sources(folder)
    (folder / "configs" / "sites" / "jw.yaml").write_text("name: jw\n")
    assert sources(folder) != before


@pytest.mark.parametrize("arguments", [("xpu",), ("cpu", "--foo", "1")])
def test_a_wrong_argument_of_the_build_shows_its_usage(arguments: tuple[str, ...]) -> None:
    run = subprocess.run([BUILD, *arguments], capture_output=True, text=True)
    assert run.returncode != 0 and arguments[-2 if len(arguments) > 1 else 0] in run.stderr
    assert "hint: containers/build.sh cpu|cuda [--output FILE]" in run.stderr
