"""Bring the cluster up and down, run commands on its nodes, and cut a node's power or link.

A node is a set of namespaces (network, mounts, hostname, processes) on the root file system made
by ``root.sh``; a bridge connects the nodes. Every name contains the checkout's hash, so that two
checkouts do not interfere. Killing a node's first process ends the node, like a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cluster import slurm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
END_S = 10.0  # for a script to end by SIGTERM
STATES = Path("/var/tmp")
LOGIN = "login"
ADDRESSES = {LOGIN: "10.77.0.1", "jw2": "10.77.0.2", "jw3": "10.77.0.3"}
COMPUTE = [node for node in ADDRESSES if node != LOGIN]
USER, USER_ID = "bench", 1500
IMAGE = "mlperf-sut-cpu.sif"  # in /opt/images of every node
START_S = 60.0
IDLE_S = 150.0


class ClusterError(Exception):
    """An action of the cluster failed."""


class Process(NamedTuple):
    """A process on a node, with its pid there."""

    pid: int
    user: str
    command: str


class Cluster:
    """The cluster of one checkout."""

    def __init__(self, checkout: Path = ROOT) -> None:
        self._checkout = checkout
        self.name = "sut-" + hashlib.sha256(bytes(checkout)).hexdigest()[:6]
        self._state = STATES / f"mlperf-{self.name}-cluster"
        # The bridge is in its own namespace, so this machine's network is not changed.
        self._switch = f"{self.name}-switch"

    def prepare(self) -> tuple[Path, Path]:
        """Make the files in the user's cache: the nodes' root file system and the image of this
        checkout. Takes minutes the first time. Raises ClusterError."""
        root = _made_by("root.sh")
        return root, _made_by("image.sh", str(root))

    def up(self) -> None:
        """Bring the cluster up unless it is up. Raises ClusterError."""
        with self._locked():
            root, image = self.prepare()
            if self.is_up() and (self._state / "root").read_text() == str(root):
                self._publish(image)
                return
            self._down()
            _remove_abandoned()
            try:
                self._make_state(root)
                self._publish(image)
                self._make_network()
                started = {node: self._start(node) for node in ADDRESSES}
                for node, process in started.items():
                    self._wait_for_start(node, process)
                self.wait_until_idle()
            except BaseException:
                self._down()
                raise

    def is_up(self) -> bool:
        return all(self._has_started(node) for node in ADDRESSES)

    def down(self) -> None:
        """Take the cluster down and delete its files. Idempotent."""
        with self._locked():
            self._down()

    def run(
        self, command: str, *, node: str = LOGIN, user: str = USER, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a node to its end and capture its output."""
        return subprocess.run(
            self.command(node, user, ["bash", "-lc", command]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def attach(self, command: str, node: str, user: str) -> int:
        """Run a shell command on a node in this terminal; return its exit code."""
        with subprocess.Popen(self.command(node, user, ["bash", "-lc", command])) as process:
            while True:
                with contextlib.suppress(KeyboardInterrupt):  # the command gets it too
                    return process.wait()

    def shell(self, node: str, user: str) -> int:
        """Open a shell on a node; return its exit code."""
        # This terminal does not exist on the node: script creates one there.
        words = ["script", "--quiet", "--return", "--command", "bash --login", "/dev/null"]
        return subprocess.call(self.command(node, user, words))

    def command(self, node: str, user: str, words: Sequence[str]) -> list[str]:
        """The argv that runs ``words`` on a node. Raises ClusterError."""
        pid = self._init_of(node)
        if pid is None:
            raise ClusterError(f"node {node} is not up")
        home = "/root" if user == "root" else f"/home/{user}"
        enter = ["nsenter", "-t", str(pid), "-m", "-u", "-n", "-p", "-i", "-r"]
        clean = [
            "env",
            "-i",
            f"--chdir={home}",
            f"TERM={os.environ.get('TERM', 'dumb')}",
            "LC_ALL=C.UTF-8",
        ]
        clean += [f"HOME={home}", f"USER={user}", f"LOGNAME={user}", "SHELL=/bin/bash"]
        clean += ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        become = ["setpriv", "--pdeathsig", "TERM"]
        if user != "root":
            become += [f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*enter, *clean, *become, *words]

    def home(self) -> Path:
        """The path on this machine of the user's home, which all nodes share."""
        return self._state / "home" / USER

    def processes(self, node: str, user: str = USER) -> list[Process]:
        """The processes of ``user`` on a node. Raises ClusterError."""
        listed = self.run("ps -eo pid=,user=,args=", node=node, user="root").stdout
        found = [Process(int(pid), who, what) for pid, who, what in _fields(listed, 3)]
        return [process for process in found if process.user == user]

    def power_off(self, node: str) -> None:
        """A power cut: the node sends nothing more, and its processes and all its files outside the
        shared folder are gone. Slurm gets no notice."""
        # Before the processes: their closing sockets would still send packets.
        subprocess.run(["ip", "-n", self._switch, "link", "delete", node], capture_output=True)
        pid = self._init_of(node)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            _wait(lambda: not Path(f"/proc/{pid}").exists(), START_S, f"node {node} did not stop")
        subprocess.run(["ip", "netns", "delete", self.netns(node)], capture_output=True)

    def power_on(self, node: str) -> None:
        """Start a node that is off; Slurm resumes it automatically. Raises ClusterError."""
        if self._init_of(node) is None:
            self._plug_in(node)
            self._wait_for_start(node, self._start(node))

    def cut_link(self, node: str) -> None:
        """Disconnect the node from the network."""
        _ip("-n", self._switch, "link", "set", node, "down")

    def restore_link(self, node: str) -> None:
        """Reconnect the node. Slurm polls a node that is down again after up to 100 s."""
        _ip("-n", self._switch, "link", "set", node, "up")

    def partition(self, one: str, other: str) -> None:
        """Cut two nodes off from each other alone: each sends what is for the other to a hardware
        address that does not exist."""
        for node, peer in ((one, other), (other, one)):
            wrong = [ADDRESSES[peer], "lladdr", "02:00:00:00:00:ff", "dev", "eth0"]
            _ip("-n", self.netns(node), "neigh", "replace", *wrong, "nud", "permanent")

    def end_partition(self, one: str, other: str) -> None:
        for node, peer in ((one, other), (other, one)):
            _ip("-n", self.netns(node), "neigh", "delete", ADDRESSES[peer], "dev", "eth0")

    @contextlib.contextmanager
    def shaped_link(self, node: str, rate: str) -> Iterator[None]:
        """The node gets at most ``rate``, e.g. 1mbit."""
        device = ["dev", node, "root"]
        tc = ["ip", "netns", "exec", self._switch, "tc", "qdisc"]
        shape = ["tbf", "rate", rate, "burst", "10kb", "latency", "100ms"]
        subprocess.run([*tc, "add", *device, *shape], check=True)
        try:
            yield
        finally:
            subprocess.run([*tc, "del", *device], check=True)

    def wait_until_idle(self, timeout_s: float = IDLE_S) -> None:
        """Wait until every compute node is idle. Raises ClusterError."""

        def states() -> list[str]:
            return self.run("sinfo -h -N -o %T").stdout.split()

        _wait(
            lambda: states() == ["idle"] * len(COMPUTE),
            timeout_s,
            lambda: f"nodes not idle after {timeout_s:g} s: {' '.join(states()) or 'no answer'}",
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process at a time brings this checkout's cluster up or down."""
        folder = os.open(HERE, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("==> Waiting for another command for this cluster", file=sys.stderr)
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _make_state(self, root: Path) -> None:
        for folder in ("etc", "home", "images", *(f"nodes/{node}" for node in ADDRESSES)):
            (self._state / folder).mkdir(parents=True)
        (self._state / "checkout").write_text(str(self._checkout))
        (self._state / "root").write_text(str(root))
        shutil.copytree(root / "home" / USER, self.home(), symlinks=True)
        for path in [self.home(), *self.home().rglob("*")]:
            os.chown(path, USER_ID, USER_ID, follow_symlinks=False)
        for name, text in slurm.files(ADDRESSES, LOGIN).items():
            (self._state / "etc" / name).write_text(text)
        (self._state / "etc" / "munge.key").write_bytes(secrets.token_bytes(128))
        (self._state / "etc" / "munge.key").chmod(0o400)

    def _publish(self, image: Path) -> None:
        """Put the image in the nodes' folder. A run that has the previous one open keeps it."""
        target = self._state / "images" / IMAGE
        if target.exists() and target.samefile(image):
            return
        temporary = target.with_suffix(".next")
        temporary.unlink(missing_ok=True)
        try:
            os.link(image, temporary)
        except OSError:  # another file system
            shutil.copyfile(image, temporary)
        temporary.rename(target)

    def _make_network(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")
        for node in ADDRESSES:
            self._plug_in(node)

    def _plug_in(self, node: str) -> None:
        """A network interface of the node on the bridge, always with the same addresses."""
        netns, address = self.netns(node), ADDRESSES[node]
        mac = f"02:00:00:00:00:{int(address.rpartition('.')[2]):02x}"
        veth = ["type", "veth", "peer", node, "netns", self._switch]
        _ip("netns", "add", netns)
        _ip("-n", netns, "link", "set", "lo", "up")
        _ip("-n", netns, "link", "add", "eth0", "address", mac, *veth)
        _ip("-n", self._switch, "link", "set", node, "master", "bridge", "up")
        _ip("-n", netns, "address", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", netns, "link", "set", "eth0", "up")

    def netns(self, node: str) -> str:
        """The name of the node's network namespace."""
        return f"{self.name}-{node}"

    def _start(self, node: str) -> subprocess.Popen[bytes]:
        root = (self._state / "root").read_text()
        command = ["ip", "netns", "exec", self.netns(node)]
        command += ["unshare", "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child"]
        command += [str(HERE / "node.sh"), node, root, str(self._state), str(self._checkout)]
        with (self._state / f"{node}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self._state / f"{node}.pid").write_text(str(process.pid))
        return process

    def _wait_for_start(self, node: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_S
        while not self._has_started(node):
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self._state / f"{node}.log").read_text()
                raise ClusterError(f"node {node} did not start:\n{log}")
            time.sleep(0.1)

    def _has_started(self, node: str) -> bool:
        pid = self._init_of(node)
        return pid is not None and Path(f"/proc/{pid}/root/run/node-is-up").exists()

    def _init_of(self, node: str) -> int | None:
        """The pid, on this machine, of the node's first process."""
        unshare = self._unshare_of(node)
        if unshare is None:
            return None
        try:
            children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def _unshare_of(self, node: str) -> int | None:
        """The pid of the parent of the node's first process; None if it has ended."""
        try:
            pid = int((self._state / f"{node}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if bytes(self._state) in command.split(b"\0") else None

    def _down(self) -> None:
        for node in ADDRESSES:
            self.power_off(node)
        subprocess.run(["ip", "netns", "delete", self._switch], capture_output=True)
        if self._state.exists():
            shutil.rmtree(self._state)


def _made_by(script: str, *arguments: str) -> Path:
    """The path printed by a script of this folder, which makes the file on first use. All that the
    script started ends with this call, also if an exception ends it."""
    command = [HERE / script, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            path, _ = process.communicate()
        except BaseException:
            for number in (signal.SIGTERM, signal.SIGKILL):  # its traps unmount what it mounted
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
            raise
    if process.returncode != 0:
        raise ClusterError(f"{HERE / script} failed")
    return Path(path.strip())


def _remove_abandoned() -> None:
    """Take down the clusters of deleted checkouts."""
    for file in STATES.glob("mlperf-sut-*-cluster/checkout"):
        checkout = Path(file.read_text())
        if not checkout.exists():
            Cluster(checkout)._down()


def _wait(done: Callable[[], bool], timeout_s: float, failure: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise ClusterError(failure if isinstance(failure, str) else failure())
        time.sleep(0.1)


def _fields(text: str, count: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.strip():
            yield line.split(maxsplit=count - 1)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"ip {' '.join(words)}: {done.stderr.strip()}")
