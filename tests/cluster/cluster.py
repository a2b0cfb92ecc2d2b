"""A cluster on this machine: ``login``, ``jw2`` and ``jw3``, with real Slurm and real Apptainer.

Usage: cluster.py up | down | run [--node NODE] [--user USER] COMMAND | shell

A node is a set of namespaces (network, mounts, hostname, processes) on a root file system that
``root.sh`` makes; a bridge joins them. Needs root. ``down`` leaves nothing behind; killing a node's
first process takes the whole node down, like a power cut.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
STATE = Path("/var/tmp/mlperf-sut-cluster")
LOGIN = "login"
ADDRESSES = {LOGIN: "10.77.0.1", "jw2": "10.77.0.2", "jw3": "10.77.0.3"}
SWITCH = "sut-switch"  # the namespace the bridge is in: this machine's own network is untouched
START_S = 60.0


def main() -> int:
    arguments = parse()
    if os.geteuid() != 0:
        sys.exit("error: namespaces with a network of their own need root: sudo make cluster")
    match arguments.action:
        case "up":
            up()
        case "down":
            down()
        case "run":
            return run(arguments.node, arguments.user, arguments.command).returncode
        case "shell":
            return run(arguments.node, arguments.user, "exec bash --login").returncode
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cluster.py", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "run", "shell"])
    parser.add_argument("command", nargs="?", default="")
    parser.add_argument("--node", choices=list(ADDRESSES), default=LOGIN)
    parser.add_argument("--user", default="bench")
    return parser.parse_args()


def up() -> None:
    """Bring the cluster up, or leave it as it is when it is up."""
    if is_up():
        return
    down()
    root = Path(
        subprocess.run([HERE / "root.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    )
    try:
        make_state(root)
        make_network()
        for node in ADDRESSES:
            start_node(node, root)
        for node in ADDRESSES:
            wait_for_node(node)
        wait_for_slurm()
    except BaseException:
        down()
        raise


def is_up() -> bool:
    return all(
        alive(node) and in_node(node, "root", ["test", "-e", "/run/node-is-up"]).returncode == 0
        for node in ADDRESSES
    )


def make_state(root: Path) -> None:
    for folder in ("etc", "home", "project", *(f"nodes/{node}" for node in ADDRESSES)):
        (STATE / folder).mkdir(parents=True)
    shutil.copytree(root / "home" / "bench", STATE / "home" / "bench")
    for path in [STATE / "home" / "bench", *(STATE / "home" / "bench").rglob("*")]:
        os.chown(path, 1500, 1500)
    for name, text in configuration().items():
        (STATE / "etc" / name).write_text(text)
    (STATE / "etc" / "munge.key").write_bytes(secrets.token_bytes(128))
    subprocess.run(["mount", "--bind", ROOT, STATE / "project"], check=True)


def configuration() -> dict[str, str]:
    """Slurm's files and /etc/hosts."""
    workers = [node for node in ADDRESSES if node != LOGIN]
    num_cpus = len(os.sched_getaffinity(0))
    nodes = "\n".join(
        f"NodeName={node} NodeAddr={ADDRESSES[node]} CPUs={num_cpus} RealMemory=9000 "
        "Gres=gpu:a30:1 State=UNKNOWN"
        for node in workers
    )
    return {
        "slurm.conf": f"""\
ClusterName=devcluster
SlurmctldHost={LOGIN}({ADDRESSES[LOGIN]})
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={LOGIN}
AccountingStorageTRES=gres/gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
KillWait=15
ScronParameters=enable
PreemptType=preempt/qos
PreemptMode=REQUEUE
{nodes}
PartitionName=gpu Nodes={",".join(workers)} Default=YES MaxTime=UNLIMITED State=UP
""",
        "slurmdbd.conf": f"""\
AuthType=auth/munge
DbdHost={LOGIN}
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=/var/log/slurm/slurmdbd.log
""",
        # A GPU needs a device file to be counted; this one is always there.
        "gres.conf": f"NodeName={','.join(workers)} Name=gpu Type=a30 File=/dev/zero\n",
        "cgroup.conf": "CgroupPlugin=disabled\n",
        "hosts": "127.0.0.1 localhost\n"
        + "".join(f"{address} {node}\n" for node, address in ADDRESSES.items()),
    }


def make_network() -> None:
    ip("netns", "add", SWITCH)
    ip("-n", SWITCH, "link", "add", "bridge", "type", "bridge")
    ip("-n", SWITCH, "link", "set", "bridge", "up")
    for node, address in ADDRESSES.items():
        netns = netns_of(node)
        ip("netns", "add", netns)
        ip("-n", netns, "link", "set", "lo", "up")
        ip("-n", netns, "link", "add", "eth0", "type", "veth", "peer", node, "netns", SWITCH)
        ip("-n", SWITCH, "link", "set", node, "master", "bridge", "up")
        ip("-n", netns, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", netns, "link", "set", "eth0", "up")


def start_node(node: str, root: Path) -> None:
    command = ["ip", "netns", "exec", netns_of(node)]
    command += ["unshare", "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child"]
    command += [str(HERE / "node.sh"), node, str(root), str(STATE)]
    with (STATE / f"{node}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (STATE / f"{node}.pid").write_text(str(process.pid))


def wait_for_node(node: str) -> None:
    deadline = time.monotonic() + START_S
    while in_node(node, "root", ["test", "-e", "/run/node-is-up"]).returncode != 0:
        if not alive(node) or time.monotonic() > deadline:
            log = (STATE / f"{node}.log").read_text()
            raise SystemExit(f"error: node {node} did not come up:\n{log}")
        time.sleep(0.1)


def wait_for_slurm() -> None:
    """Until every node takes jobs."""
    wanted = len(ADDRESSES) - 1
    deadline = time.monotonic() + START_S
    states = ""
    while time.monotonic() < deadline:
        states = in_node(LOGIN, "bench", ["sinfo", "-h", "-N", "-o", "%T"]).stdout
        if states.split() == ["idle"] * wanted:
            return
        time.sleep(0.2)
    raise SystemExit(f"error: Slurm's nodes did not become idle: {states.split()}")


def in_node(node: str, user: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command on a node, quietly."""
    return subprocess.run(enter(node, user, command), capture_output=True, text=True)


def run(node: str, user: str, command: str) -> subprocess.CompletedProcess[bytes]:
    """A shell's command on a node, with our terminal."""
    if not is_up():
        up()
    return subprocess.run(enter(node, user, ["bash", "-lc", command]))


def enter(node: str, user: str, command: Sequence[str]) -> list[str]:
    pid = init_of(node)
    if pid is None:
        return ["false"]
    home = "/root" if user == "root" else f"/home/{user}"
    entered = ["nsenter", "-t", str(pid), "-m", "-u", "-n", "-p", "-i", "-r", f"-w{home}"]
    clean = ["env", "-i", f"TERM={os.environ.get('TERM', 'dumb')}", "LC_ALL=C.UTF-8"]
    clean += [f"HOME={home}", "PATH=/opt/host/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"USER={user}"]
    become = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    return [*entered, *clean, *become, *command]


def init_of(node: str) -> int | None:
    """The node's first process, as this machine numbers it."""
    try:
        unshare = int((STATE / f"{node}.pid").read_text())
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
    except (OSError, ValueError):
        return None
    return int(children[0]) if children else None


def alive(node: str) -> bool:
    return init_of(node) is not None


def power_off(node: str) -> None:
    """A power cut: every process of the node is gone at once."""
    if (pid := init_of(node)) is not None:
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.01)


def down() -> None:
    """Take everything down and away. Idempotent."""
    for node in ADDRESSES:
        power_off(node)
    for netns in [*map(netns_of, ADDRESSES), SWITCH]:
        subprocess.run(["ip", "netns", "delete", netns], capture_output=True)
    subprocess.run(["umount", STATE / "project"], capture_output=True)
    if STATE.exists():
        shutil.rmtree(STATE)


def netns_of(node: str) -> str:
    return f"sut-{node}"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    sys.exit(main())
