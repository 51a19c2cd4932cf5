#!/usr/bin/env bash
# Make a stand-in for the base image from Debian packages, where no registry can be reached:
#
#     packaging/stand_in_base.sh IMAGE base.tar
#
# imports it into podman (or docker) under the name IMAGE and saves it in base.tar for Apptainer.
# Needs root and debootstrap; MIRROR names another mirror than Debian's own. For tests only.
set -euo pipefail

image=$1
tar=$2
engine=${ENGINE:-$("$(dirname "$0")/engine.sh")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv trixie "$work" \
    ${MIRROR:+"$MIRROR"}
# As slim as the image that it stands in for.
rm -rf "$work"/var/lib/apt/lists/* "$work"/var/cache/apt/* "$work"/usr/share/{doc,man,locale,info}/*
ln -s /usr/bin/python3 "$work/usr/local/bin/python3"
ln -s /usr/bin/python3 "$work/usr/local/bin/python"
tar -C "$work" -c . | "$engine" import - "$image"
rm -f "$tar"
"$engine" save --output "$tar" "$image"
