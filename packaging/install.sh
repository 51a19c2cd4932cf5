#!/bin/sh
# Install angelo for an image: run in a copy of the repository, as `sh packaging/install.sh cpu`
# (or gpu). Everything lands in /opt/angelo; wheels are those of the lock file, by checksum.
set -eu

variant=$1
# sha256 of models/compact/bundle.json that the caller expects, or "unknown".
expected=${2:-unknown}
prefix=/opt/angelo

found=$(sha256sum models/compact/bundle.json | cut -d ' ' -f 1)
if [ "$expected" != unknown ] && [ "$expected" != "$found" ]; then
    echo "models/compact/bundle.json has sha256 $found, not $expected" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

python3 -m venv "$work/tools"
pip="$work/tools/bin/python -m pip --quiet"
$pip install --require-hashes --only-binary :all: -r locks/build.txt
$pip wheel --no-deps --no-build-isolation --wheel-dir "$work" ./runtime

python3 -m venv --without-pip "$prefix"
pip="$pip --python $prefix/bin/python install --no-deps --no-compile"
$pip --require-hashes --only-binary :all: -r "locks/$variant.txt"
$pip "$work"/angelo-*.whl

# What no run needs.
sh packaging/trim.sh "$prefix"

# The image is read-only, so byte code is made now and never compared with its source.
"$prefix/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$prefix/lib"

mkdir -p "$prefix/share"
cp -r packaging/self_test "$prefix/share/self_test"
cp packaging/self_test.sh "$prefix/bin/angelo-self-test"
chmod 755 "$prefix/bin/angelo-self-test"
chmod -R a+rX "$prefix"

# Every file of the bundle against its checksum.
"$prefix/bin/python" - <<'END'
from angelo.bundle import find_bundle, load_bundle

bundle = load_bundle(find_bundle("compact"))
print(f"bundle {bundle.name} {bundle.version}: {len(bundle.files)} checksums agree")
END
