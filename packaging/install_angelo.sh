#!/bin/sh
# Second step of an image: angelo with its bundle, into /opt/angelo. Run in the root of the
# repository, or a copy of it: sh packaging/install_angelo.sh [SHA256], the checksum that
# models/compact/bundle.json is expected to have, or "unknown".
set -eu

prefix=/opt/angelo
expected=${1:-unknown}
found=$(sha256sum models/compact/bundle.json | cut -d ' ' -f 1)
if [ "$expected" != unknown ] && [ "$expected" != "$found" ]; then
    echo "models/compact/bundle.json has sha256 $found, not $expected" >&2
    exit 1
fi

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
pip="$tools/bin/python -m pip --quiet --disable-pip-version-check"
$pip install --no-cache-dir --only-binary :all: --require-hashes -r locks/build.txt
$pip wheel --no-deps --no-build-isolation --wheel-dir "$tools" ./runtime
$pip --python "$prefix/bin/python" install --no-deps --no-compile "$tools"/angelo-*.whl
"$prefix/bin/python" -m compileall -q --invalidation-mode unchecked-hash \
    "$prefix"/lib/python3*/site-packages/angelo

mkdir -p "$prefix/share"
cp -r packaging/self_test "$prefix/share/self_test"
cp packaging/self_test.sh "$prefix/bin/angelo-self-test"
chmod 755 "$prefix/bin/angelo-self-test"
chmod -R a+rX "$prefix"

# Every file of the bundle against its checksum.
"$prefix/bin/python" - << 'END'
from angelo.bundle import find_bundle, load_bundle

bundle = load_bundle(find_bundle("compact"))
print(f"bundle {bundle.name} {bundle.version}: {len(bundle.files)} checksums agree")
END
