"""What a run and its caches leave is for its user alone, whatever the umask."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cli import environment, fast

from sut.cluster import sbatch
from sut.errors import InputError
from sut.inputs import cache, hashes
from sut.rundir import RunDir

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another owner needs root")


def open_to_others(folder: Path) -> list[str]:
    modes = {path: path.lstat().st_mode for path in (folder, *folder.rglob("*"))}
    return [f"{p} {m:o}" for p, m in modes.items() if m & 0o077 and not stat.S_ISLNK(m)]


@pytest.mark.parametrize("umask", [0o000, 0o002])
def test_a_run_leaves_files_for_its_user_alone(umask: int, tmp_path: Path) -> None:
    kept = tmp_path / "cache"
    command = [sys.executable, "-m", "sut.submit", *fast(), "--mode", "all"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(XDG_CACHE_HOME=str(kept)),
        capture_output=True,
        text=True,
        umask=umask,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run_dir = RunDir(tmp_path / "runs" / "latest")
    assert (run_dir.loadgen("accuracy") / "mlperf_log_accuracy.json").is_file()
    assert any(run_dir.job.glob("*.pkl")) and any(run_dir.job.glob("*_log.out"))
    assert open_to_others(tmp_path / "runs") == [] and open_to_others(kept) == []


def test_a_downloaded_folder_is_readable_by_all(tmp_path: Path) -> None:
    code = "import os; from sut import assets; assets._download = lambda folder: folder.mkdir(); "
    code += f"assets.main([{str(tmp_path / 'assets')!r}])"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
    assert stat.S_IMODE((tmp_path / "assets").stat().st_mode) == 0o755


class TestSubmititsFiles:
    """A job unpickles them, which executes what is in them."""

    def starts(self, run_dir: RunDir) -> subprocess.CompletedProcess[str]:
        check = sbatch.only_from_own_folder(run_dir)
        return subprocess.run(["sh", "-c", f"{check} && :"], capture_output=True, text=True)

    @pytest.fixture
    def run_dir(self, tmp_path: Path) -> RunDir:
        run_dir = RunDir(tmp_path / "it's a run")
        run_dir.job.mkdir(parents=True)
        (run_dir.job / "7_submitted.pkl").touch()
        (run_dir.job / ".submission_file_ab.sh").symlink_to("7_submission.sh")
        return run_dir

    def test_are_used_where_they_are_own(self, run_dir: RunDir) -> None:
        done = self.starts(run_dir)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.parametrize("name", ["", "7_submitted.pkl"])
    @pytest.mark.parametrize("mode", [0o770, 0o707])
    def test_are_refused_where_others_may_write(
        self, name: str, mode: int, run_dir: RunDir
    ) -> None:
        (run_dir.job / name).chmod(mode)
        done = self.starts(run_dir)
        assert done.returncode == 1 and str(run_dir.job / name) in done.stdout
        assert done.stderr.splitlines()[0].startswith(f"error: {run_dir.job} has files that")
        assert done.stderr.splitlines()[1].startswith("hint: submit again")

    def test_are_refused_behind_a_link(self, run_dir: RunDir, tmp_path: Path) -> None:
        run_dir.job.rename(tmp_path / "elsewhere")
        run_dir.job.symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "7_submitted.pkl").chmod(0o660)
        assert self.starts(run_dir).returncode == 1

    @as_root
    @pytest.mark.parametrize("name", ["", "7_submitted.pkl"])
    def test_are_refused_of_another_user(self, name: str, run_dir: RunDir) -> None:
        os.chown(run_dir.job / name, 1234, 1234)
        assert self.starts(run_dir).returncode == 1


def test_the_output_of_a_batch_job_is_private(tmp_path: Path) -> None:
    code = "from sut import batch; batch._make_output_private()"
    output = tmp_path / "slurm-7.out"
    with output.open("wb") as file:
        output.chmod(0o666)
        command = [sys.executable, "-c", code]
        subprocess.run(command, env=environment(), stdout=file, stderr=subprocess.PIPE, check=True)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


class TestCacheFolder:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "cache"
        (folder / "hashes").mkdir(parents=True)
        monkeypatch.setenv(cache.CACHE_VARIABLE, str(folder))
        return folder

    def test_is_used_where_others_can_only_read(self, folder: Path) -> None:
        folder.chmod(0o755)
        assert cache.cache_dir() == folder

    @pytest.mark.parametrize("name", ["", "hashes"])
    @pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
    def test_is_refused_where_others_may_write(self, name: str, mode: int, folder: Path) -> None:
        (folder / name).chmod(mode)
        with pytest.raises(InputError, match=f"(?s)may write to {folder / name}.*chmod -R go-w"):
            cache.cache_dir()

    @as_root
    def test_is_refused_of_another_user(self, folder: Path) -> None:
        os.chown(folder, 1234, 1234)
        with pytest.raises(InputError, match=r"belongs to another user \(1234\)"):
            cache.cache_dir()

    def test_a_planted_hash_is_not_used(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hashes, "TICK_NS", -(10**10))  # no wait until the file is old
        file = tmp_path / "file"
        file.write_bytes(b"content")
        known = hashes.sha256_of(file)

        def of_file() -> str:
            return hashes.kept([file], lambda: hashes.sha256_of(file))

        assert of_file() == known
        (entry,) = (folder / "hashes").iterdir()
        entry.write_text("0" * 64)
        assert of_file() == "0" * 64  # it is believed where it is this user's
        entry.chmod(0o666)
        assert of_file() == known
        entry.unlink()
        (tmp_path / "planted").write_text("0" * 64)
        entry.symlink_to(tmp_path / "planted")
        assert of_file() == known


def test_a_file_replaced_by_one_of_its_size_and_time_is_hashed_again(tmp_path: Path) -> None:
    file = tmp_path / "image.sif"
    digests = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, ns=(10**18, 10**18))
        digests.append(hashes.kept([file], lambda: hashes.sha256_of(file)))
    assert digests == [hashlib.sha256(each).hexdigest() for each in (b"one", b"two")]
