#!/bin/sh
# Makes a module of an installed angelo.
#
#   sh install.sh (--venv FOLDER | --image FILE) --prefix FOLDER --modules FOLDER
#
#   --venv     a virtual environment that angelo is installed in
#   --image    an Apptainer image of angelo
#   --prefix   where commands go: FOLDER/<version>/bin (the environment's own bin would bring its
#              python along); networks of the site may lie in FOLDER/<version>/models
#   --modules  a folder of MODULEPATH: the module is FOLDER/angelo/<version>
#
# Then: module load angelo
set -eu

fail() { echo "error: $*" >&2; exit 2; }
absolute() { (cd "$1" 2>/dev/null && pwd) || fail "$1: no such folder"; }

venv= image= prefix= modules=
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || fail "$1 wants a value"
  case $1 in
    --venv) venv=$(absolute "$2") ;;
    --image) image=$(absolute "$(dirname "$2")")/$(basename "$2") ;;
    --prefix) prefix=$2 ;;
    --modules) modules=$2 ;;
    *) fail "$1 is not an option; see the head of $0" ;;
  esac
  shift 2
done
[ -n "$prefix" ] && [ -n "$modules" ] || fail "give --prefix and --modules"
case "${venv:+v}${image:+i}" in
  v) [ -x "$venv/bin/angelo" ] || fail "$venv: angelo is not installed there"
     version=$("$venv/bin/angelo" --version) ;;
  i) [ -f "$image" ] || fail "$image: no such file"
     version=$(apptainer exec "$image" angelo --version) || fail "$image: has no angelo" ;;
  *) fail "give one of --venv and --image" ;;
esac
version=${version#angelo }

mkdir -p "$prefix/$version/bin" "$modules/angelo"
root=$(absolute "$prefix/$version")
case $root$venv$image in
  *[!A-Za-z0-9/._+-]*) fail "$root: paths may have letters, digits and / . _ + - only" ;;
esac
for command in angelo relion_angelo; do
  if [ -n "$venv" ]; then
    ln -sf "$venv/bin/$command" "$root/bin/$command"
  else
    cat > "$root/bin/$command" <<EOF
#!/bin/sh
# $command in its image; with the GPUs of the node, if any, and the folders in ANGELO_MODELS.
[ -e /dev/nvidiactl ] && set -- --nv $image $command "\$@" || set -- $image $command "\$@"
IFS=:
for folder in \${ANGELO_MODELS:-}; do
  [ ! -d "\$folder" ] || set -- --bind "\$folder" "\$@"
done
exec apptainer exec "\$@"
EOF
    chmod 755 "$root/bin/$command"
  fi
done
sed -e "s#@VERSION@#$version#" -e "s#@ROOT@#$root#" \
  "$(dirname "$0")/modulefile" > "$modules/angelo/$version"
echo "made $modules/angelo/$version for $root"
