#!/usr/bin/env bash
# Usage: node.sh NAME ROOT STATE PROJECT   (by cluster.py, as the first process of a node)
#
# Sets up a node in its namespaces: the root file system, the folders that the nodes share, and this
# node's services, configured in STATE/etc.
set -euo pipefail
# shellcheck source=tests/cluster/rootfs.sh
source "$(dirname "${BASH_SOURCE[0]}")/rootfs.sh"

readonly name=$1 root=$2 state=$3 project=$4

become_root_file_system "$state/nodes/$name" "$root" \
  "$state/etc" /etc/slurm-cluster ro \
  "$state/home" /home rw \
  "$state/images" /opt/images ro \
  "$project" /opt/mlperf-sut ro

hostname "$name"
echo "$name" >/etc/hostname
cp /etc/slurm-cluster/hosts /etc/hosts
cp /etc/slurm-cluster/*.conf /etc/slurm/
install --owner munge --mode 400 /etc/slurm-cluster/munge.key /etc/munge/munge.key

printf '#!/bin/sh\nexec python -m sut "$@"\n' >/usr/local/bin/sut
chmod +x /usr/local/bin/sut

own() { # USER PATH...: creates missing folders
  local path
  for path in "${@:2}"; do [ -e "$path" ] || mkdir -p "$path"; done
  chown "$1:$1" "${@:2}"
}
own munge /run/munge /var/log/munge /var/lib/munge
own slurm /etc/slurm/slurmdbd.conf /var/spool/slurmctld /var/log/slurm
chmod 600 /etc/slurm/slurmdbd.conf
mkdir -p /var/spool/slurmd
runuser -u munge -- munged

start_accounting() {
  own mysql /run/mysqld
  runuser -u mysql -- mariadbd --skip-networking --innodb-buffer-pool-size=64M \
    --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 &>/var/log/mariadb.log &
  until mariadb-admin ping &>/dev/null; do sleep 0.1; done
  mariadb -e "create database slurm_acct_db;
    create user slurm@localhost identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@localhost;"
  runuser -u slurm -- slurmdbd
  until sacctmgr --immediate show cluster &>/dev/null; do sleep 0.1; done
  sacctmgr --immediate --quiet add cluster devcluster >/dev/null
  # A job of QOS high preempts one of QOS low, with 20 seconds' notice.
  sacctmgr --immediate --quiet add qos low PreemptMode=requeue GraceTime=20 >/dev/null
  sacctmgr --immediate --quiet add qos high Priority=1000 Preempt=low >/dev/null
  sacctmgr --immediate --quiet add account users Description=users Organization=users >/dev/null
  sacctmgr --immediate --quiet add user bench Account=users QOS=normal,low,high DefaultQOS=normal >/dev/null
}

case $name in
login)
  start_accounting
  runuser -u slurm -- slurmctld
  ;;
*) slurmd ;;
esac

touch /run/node-is-up
# Bash reaps orphaned processes.
trap 'exit 0' TERM
while :; do
  sleep infinity &
  wait $! || true
done
