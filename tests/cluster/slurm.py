"""The configuration of the test cluster's Slurm."""

from __future__ import annotations

import os
from collections.abc import Mapping


def files(addresses: Mapping[str, str], head: str) -> dict[str, str]:
    """The files of /etc/slurm, and /etc/hosts. ``head`` runs Slurm; the other nodes run jobs."""
    compute = [node for node in addresses if node != head]
    return {
        "slurm.conf": _slurm_conf(addresses, head, compute),
        "slurmdbd.conf": _slurmdbd_conf(head),
        # A GPU needs a device file; this one exists on every machine.
        "gres.conf": f"NodeName={','.join(compute)} Name=gpu Type=a30 File=/dev/zero\n",
        "cgroup.conf": "CgroupPlugin=disabled\n",
        "hosts": "127.0.0.1 localhost\n"
        + "".join(f"{address} {node}\n" for node, address in addresses.items()),
    }


def _slurm_conf(addresses: Mapping[str, str], head: str, compute: list[str]) -> str:
    num_cpus = len(os.sched_getaffinity(0))
    nodes = "\n".join(
        f"NodeName={node} NodeAddr={addresses[node]} CPUs={num_cpus} RealMemory=9000 "
        "Gres=gpu:a30:1 State=UNKNOWN"
        for node in compute
    )
    # cred_expire is also the delay before a requeued job may start again (default: 120 s).
    # Nodes are pinged every third of SlurmdTimeout, but not while a lost node's ping waits for
    # MessageTimeout (10 s): with less than 20 s its neighbour may be declared lost, too.
    return f"""\
ClusterName=devcluster
SlurmctldHost={head}({addresses[head]})
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=cred_expire=10
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={head}
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=10,bf_interval=5,batch_sched_delay=0
GresTypes=gpu
MpiDefault=none
JobRequeue=1
ReturnToService=2
SlurmdTimeout=20
KillWait=15
ScronParameters=enable
PreemptType=preempt/qos
PreemptMode=REQUEUE
{nodes}
PartitionName=gpu Nodes={",".join(compute)} Default=YES MaxTime=UNLIMITED State=UP
"""


def _slurmdbd_conf(head: str) -> str:
    return f"""\
AuthType=auth/munge
DbdHost={head}
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=/var/log/slurm/slurmdbd.log
"""
