# shellcheck shell=bash
# Sourced by the scripts that set up a checkout.

started=() # process groups that end with this shell
trap end_started EXIT

end_started() {
  local group
  for group in "${started[@]}"; do
    kill -- "-$group" 2>/dev/null || true
  done
}

in_background() { # COMMAND...: sets `started_last` to its process
  set -m # in a process group of its own
  "$@" &
  set +m
  started_last=$!
  started+=("$started_last")
}

with_progress() { # TELL COMMAND...: run COMMAND, and the command TELL every 20 seconds of it
  local -r tell=$1
  shift
  in_background "$@"
  local -r running=$started_last
  local told=$SECONDS
  while kill -0 "$running" 2>/dev/null; do
    sleep 0.1
    if ((SECONDS - told >= 20)); then
      told=$SECONDS
      "$tell"
    fi
  done
  wait "$running"
}

still() { echo "    still at it"; }
