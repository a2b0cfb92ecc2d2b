# shellcheck shell=bash
# Sourced by the scripts that set up a checkout. What runs in the background ends with the script.

trap end_background EXIT

end_background() {
  local group
  for group in $(jobs -pr); do
    kill -- "-$group" 2>/dev/null || true
  done
  wait
}

in_background() { # COMMAND...: in a process group of its own, which is $!
  set -m
  "$@" </dev/null &
  set +m
}

with_progress() { # REPORT COMMAND...: run COMMAND; every 20 seconds of it, run REPORT
  local -r report=$1
  shift
  in_background "$@"
  local -r running=$!
  local reported_s=$SECONDS
  while kill -0 "$running" 2>/dev/null; do
    sleep 0.1
    if ((SECONDS - reported_s >= 20)); then
      reported_s=$SECONDS
      "$report"
    fi
  done
  wait "$running"
}

still() { echo "    still running"; }
