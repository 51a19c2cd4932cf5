#!/bin/sh
# Print the container engine that works here (docker or podman), or say why none does.
for engine in docker podman; do
    if ! command -v "$engine" > /dev/null; then
        echo "$engine is not installed" >&2
    elif ! "$engine" info > /dev/null 2>&1; then
        echo "$engine is installed, but \`$engine info\` fails" >&2
    else
        echo "$engine"
        exit 0
    fi
done
exit 1
