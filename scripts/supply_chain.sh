#!/usr/bin/env bash
# What is in the images and whether something is known against it: scripts/supply_chain.sh [FOLDER]
#
# Writes a CycloneDX list of every package, with its version, for each list that the images install and for the
# environment at hand, into FOLDER (.fleet/sbom). Then asks the advisory service about the pinned versions. Where that
# cannot be reached nothing is known, which is said, and left in FOLDER/NOT_AUDITED; with REQUIRE_AUDIT=1 it fails.
# An advisory is printed, and with REQUIRE_AUDIT=1 fails it, unless its id stands in
# deploy/requirements/accepted-advisories.txt with the reason: not every change waits for somebody else's release.
# OSV_URL names another service of the same API, such as a mirror of your own.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.fleet/sbom}
tools=.fleet/supply-chain
lists=(service cpu gpu)
mkdir -p "$folder"
export PIP_DISABLE_PIP_VERSION_CHECK=1

# Apart from .venv: what the tools need must not change what is looked at.
if [ ! -e "$tools/.ready" ]; then
  "${PYTHON:-python3}" -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet 'cyclonedx-bom>=7,<8' 'pip-audit>=2.10,<3'
  touch "$tools/.ready"
fi

for list in "${lists[@]}"; do
  "$tools/bin/cyclonedx-py" requirements --output-reproducible --of JSON -o "$folder/$list.cdx.json" \
    "deploy/requirements/$list.txt"
  "$tools/bin/python" - "$folder/$list.cdx.json" "deploy/requirements/$list.txt" <<'PYTHON'
import json, sys
listed = {f"{one['name']}=={one['version']}" for one in json.load(open(sys.argv[1]))["components"]}
pinned = {line.strip() for line in open(sys.argv[2]) if line.strip() and not line.startswith("#")}
if listed != pinned:
    sys.exit(f"supply chain: {sys.argv[1]} is not what is pinned: {sorted(listed ^ pinned)}")
PYTHON
done
if [ -x .venv/bin/python ]; then
  "$tools/bin/cyclonedx-py" environment --output-reproducible --of JSON -o "$folder/environment.cdx.json" .venv/bin/python
fi
echo "supply chain: lists of packages are in $folder"

accepted=()
while read -r advisory _; do
  case $advisory in '' | '#'*) ;; *) accepted+=(--ignore-vuln "$advisory") ;; esac
done <deploy/requirements/accepted-advisories.txt

rm -f "$folder/NOT_AUDITED"
known=0
for list in "${lists[@]}"; do
  # A local version, as of torch's CPU build, is in no index and no advisory: the public part of it is.
  sed -E 's/(==[^+ ]+)\+[^ ]+/\1/' "deploy/requirements/$list.txt" >"$folder/$list.audited.txt"
  report=$folder/$list.audit.json
  rm -f "$report"
  if "$tools/bin/pip-audit" --requirement "$folder/$list.audited.txt" --no-deps --disable-pip --vulnerability-service osv \
      --osv-url "${OSV_URL:-https://api.osv.dev/v1/query}" --timeout 20 --progress-spinner off \
      --format json --output "$report" "${accepted[@]}" 2>"$folder/$list.audit.log"; then
    echo "supply chain: nothing is known against $list"
  elif [ -s "$report" ]; then
    cat "$folder/$list.audit.log" >&2
    echo "supply chain: something is known against $list: see $report" >&2
    known=1
  else
    tail -n 1 "$folder/$list.audit.log" >"$folder/NOT_AUDITED"
    break
  fi
done
if [ -e "$folder/NOT_AUDITED" ]; then
  echo "supply chain: NOT AUDITED, the advisory service could not be asked: $(cut -c1-200 "$folder/NOT_AUDITED")" >&2
  known=1
fi
[ $known = 0 ] || [ "${REQUIRE_AUDIT:-}" != 1 ]
