#!/usr/bin/env bash
# Installs what a Debian 12 machine with only a Rust toolchain lacks. Idempotent, and quick when nothing is missing.
set -euo pipefail

packages=()
need() { # command package
    command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}
need clang clang
need mold mold
need cmake cmake
need protoc protobuf-compiler
need pkg-config pkg-config
need psql postgresql-client
need python3 python3
need openssl openssl
need curl curl
need jq jq
need chromium chromium
[ -e /usr/include/openssl/ssl.h ] || packages+=(libssl-dev)
[ -x /usr/lib/postgresql/15/bin/postgres ] || packages+=(postgresql postgresql-contrib)
# Without a font a browser shows boxes.
[ -e /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf ] || packages+=(fonts-dejavu-core)
python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || packages+=(python3-venv)

if [ "${#packages[@]}" -gt 0 ]; then
    echo "setup: installing ${packages[*]}"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y --no-install-recommends "${packages[@]}" >/dev/null
fi

command -v cargo >/dev/null 2>&1 || {
    echo "setup: no Rust toolchain; install rustup first" >&2
    exit 1
}
cargo --version >/dev/null
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

# Python clients for the tests. The stamp names what is installed, so that a change of the list is noticed.
venv="${VENV:-$HOME/.cache/flowstone/venv}"
clients=("psycopg[binary]==3.3.*" "deltalake==1.*" "pyarrow" "pandas" "adbc_driver_flightsql==1.*" "adbc_driver_manager==1.*")
stamp="$venv/.flowstone-clients"
if [ ! -x "$venv/bin/python" ] || [ "$(cat "$stamp" 2>/dev/null)" != "${clients[*]}" ]; then
    echo "setup: installing Python clients into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "${clients[@]}"
    echo "${clients[*]}" >"$stamp"
fi
