#!/usr/bin/env bash
# Usage: node.sh NAME ROOT STATE   (by cluster.py, as PID 1 of a node's namespaces)
#
# Turns its namespaces into a node: a root file system of its own on top of ROOT, the folders that
# nodes share, and the services of this node. STATE/etc has their configuration.
set -euo pipefail

readonly name=$1 root=$2 state=$3
readonly new=$state/nodes/$name/root

mount --make-rprivate /
mount -t tmpfs tmpfs "$state/nodes/$name"
mkdir -p "$state/nodes/$name"/{upper,work,root}
mount -t overlay overlay "$new" \
  -o "lowerdir=$root,upperdir=$state/nodes/$name/upper,workdir=$state/nodes/$name/work"

mount -t proc proc "$new/proc"
mount -t sysfs -o ro sysfs "$new/sys"
mount -t tmpfs -o mode=755 tmpfs "$new/dev"
mkdir "$new"/dev/{pts,shm}
mount -t devpts -o newinstance,ptmxmode=666,gid=5 devpts "$new/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$new/dev/shm"
ln -s pts/ptmx "$new/dev/ptmx"
ln -s /proc/self/fd "$new/dev/fd"
mknod -m 666 "$new/dev/null" c 1 3
mknod -m 666 "$new/dev/zero" c 1 5
mknod -m 666 "$new/dev/full" c 1 7
mknod -m 666 "$new/dev/random" c 1 8
mknod -m 666 "$new/dev/urandom" c 1 9
mknod -m 666 "$new/dev/tty" c 5 0
mknod -m 666 "$new/dev/fuse" c 10 229
mount -t tmpfs tmpfs "$new/run"
mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"

# Shared by all nodes: homes, and Slurm's configuration. The project is there to read.
mount --bind "$state/home" "$new/home"
mkdir -p "$new/etc/slurm" "$new/opt/mlperf-sut"
cp "$state"/etc/*.conf "$new/etc/slurm/"
cp "$state/etc/munge.key" "$new/etc/munge/munge.key"
cp "$state/etc/hosts" "$new/etc/hosts"
mount --bind "$state/project" "$new/opt/mlperf-sut"
mount -o remount,bind,ro "$new/opt/mlperf-sut"

hostname "$name"
echo "$name" >"$new/etc/hostname"
cd "$new"
mkdir -p .old
pivot_root . .old
umount -l /.old
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
unset XDG_CACHE_HOME

own() { # USER PATH...: a folder that is missing is made
  local path
  for path in "${@:2}"; do [ -e "$path" ] || mkdir -p "$path"; done
  chown "$1:$1" "${@:2}"
}
own munge /run/munge /var/log/munge /etc/munge/munge.key
own slurm /etc/slurm/slurmdbd.conf
chmod 600 /etc/slurm/slurmdbd.conf
chmod 400 /etc/munge/munge.key
own slurm /var/spool/slurmctld /var/log/slurm
mkdir -p /var/spool/slurmd
runuser -u munge -- munged

case $name in
login)
  own mysql /run/mysqld
  runuser -u mysql -- mariadbd --skip-networking --innodb-buffer-pool-size=64M \
    --innodb-lock-wait-timeout=900 &>/var/log/mariadb.log &
  until mariadb-admin ping &>/dev/null; do sleep 0.1; done
  mariadb -e "create database if not exists slurm_acct_db;
    create user if not exists slurm@localhost identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@localhost;"
  runuser -u slurm -- slurmdbd
  until sacctmgr --immediate show cluster &>/dev/null; do sleep 0.1; done
  sacctmgr --immediate add cluster devcluster &>/dev/null || true
  sacctmgr --immediate add account users Description=users Organization=users &>/dev/null || true
  sacctmgr --immediate add user bench Account=users &>/dev/null || true
  runuser -u slurm -- slurmctld
  ;;
*) slurmd ;;
esac

touch /run/node-is-up
# Bash reaps what the node leaves behind.
trap 'exit 0' TERM
while :; do
  sleep infinity &
  wait $! || true
done
