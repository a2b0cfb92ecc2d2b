# shellcheck shell=bash
# Sourced by the first process of new namespaces.

# become_root_file_system FOLDER ROOT [SOURCE TARGET ro|rw]...
#
# Makes ROOT this mount namespace's root file system. Writes go to an overlay in memory, mounted at
# FOLDER. Each SOURCE of this machine is bound to its TARGET.
become_root_file_system() {
  local -r folder=$1 lower=$2
  shift 2
  mount --make-rprivate /
  mount -t tmpfs tmpfs "$folder"
  mkdir "$folder"/{upper,work,root}
  local -r new=$folder/root
  mount -t overlay overlay "$new" \
    -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work"

  mount -t proc proc "$new/proc"
  mount -t sysfs -o ro sysfs "$new/sys"
  mount -t tmpfs tmpfs "$new/run"
  mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$new/dev"
  mkdir "$new"/dev/{pts,shm}
  mount -t devpts -o newinstance,ptmxmode=666,gid=5 devpts "$new/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$new/dev/shm"
  ln -s pts/ptmx "$new/dev/ptmx"
  ln -s /proc/self/fd "$new/dev/fd"
  ln -s /proc/self/fd/0 "$new/dev/stdin"
  ln -s /proc/self/fd/1 "$new/dev/stdout"
  ln -s /proc/self/fd/2 "$new/dev/stderr"
  mknod -m 666 "$new/dev/null" c 1 3
  mknod -m 666 "$new/dev/zero" c 1 5
  mknod -m 666 "$new/dev/full" c 1 7
  mknod -m 666 "$new/dev/random" c 1 8
  mknod -m 666 "$new/dev/urandom" c 1 9
  mknod -m 666 "$new/dev/tty" c 5 0
  mknod -m 666 "$new/dev/fuse" c 10 229

  while [ $# -gt 0 ]; do
    if [ -d "$1" ]; then mkdir -p "$new$2"; else touch "$new$2"; fi
    mount --bind "$1" "$new$2"
    [ "$3" = rw ] || mount -o remount,bind,ro "$new$2"
    shift 3
  done

  mkdir "$new/.old"
  cd "$new" || return
  pivot_root . .old
  umount -l /.old
  rmdir /.old
  export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
}
