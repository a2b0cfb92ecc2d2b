#!/usr/bin/env bash
# Make the pictures in docs/images: tools/screenshots.sh REPORT_HTML HISTORY_HTML COMPARISON_HTML
# Needs Debian's packages chromium and optipng. Pages are shown in frames as wide as a phone or a
# window; a frame's color-scheme is what its page sees.
set -euo pipefail

readonly IMAGES=docs/images
readonly REPORT=$1 HISTORY=$2 COMPARISON=$3

# frame PAGE WIDTH HEIGHT [light|dark]
frame() {
  local -r page=$(realpath "${1%%#*}") width=$2 height=$3 scheme=${4:-light}
  local fragment=""
  [[ $1 != *#* ]] || fragment="#${1#*#}"
  echo "<iframe src='file://$page$fragment' width='$width' height='$height' style='color-scheme: $scheme'></iframe>"
}

# section TITLE: the report's fragment that shows this section
section() {
  grep -oP "<section id=\"\K\d+(?=\"><h2>$1)" "$REPORT"
}

# shoot NAME WIDTH HEIGHT FRAME...
shoot() {
  local -r name=$1 width=$2 height=$3
  shift 3
  local -r page=$scratch/$name.html
  {
    echo '<!doctype html><style>body { margin: 0; display: flex; gap: 12px; background: #888 }'
    echo 'iframe { border: 0; flex: none }</style>'
    printf '%s\n' "$@"
  } >"$page"
  chromium --headless --no-sandbox --hide-scrollbars --allow-file-access-from-files \
    --window-size="$width,$height" --screenshot="$IMAGES/$name.png" "file://$page" 2>/dev/null
  optipng -quiet "$IMAGES/$name.png"
}

scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT

shoot report 1180 1010 "$(frame "$REPORT" 1180 1010)"
shoot report-dark 1180 1010 "$(frame "$REPORT" 1180 1010 dark)"
shoot report-phone 1194 844 "$(frame "$REPORT" 390 844 dark)" \
  "$(frame "$REPORT#$(section 'In short')" 390 844)" \
  "$(frame "$REPORT#$(section 'Timings')" 390 844)"
shoot plots 1180 1500 "$(frame "$REPORT#plots-$(section 'Performance')" 1180 1500)"
shoot history 1440 600 "$(frame "$HISTORY" 1440 600)"
shoot comparison 1180 1010 "$(frame "$COMPARISON" 1180 1010)"
