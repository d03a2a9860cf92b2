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
need make make
need protoc protobuf-compiler
need pkg-config pkg-config
need psql postgresql-client
need python3 python3
need openssl openssl
need curl curl
need jq jq
need chromium chromium
need java default-jdk-headless
need mvn maven
need node nodejs
need npm npm
need mariadbd mariadb-server-core
need mariadb mariadb-client-core
[ -e /usr/include/openssl/ssl.h ] || packages+=(libssl-dev)
[ -e /usr/include/zlib.h ] || packages+=(zlib1g-dev)
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

# Clients for the tests, outside of the repository. A stamp names what is installed, so that a change of a list is noticed.
cache="${FLOWSTONE_CACHE:-$HOME/.cache/flowstone}"

install() { # directory command... -- package...
    local directory="$1" command=() stamp="$1/.flowstone-clients"
    shift
    while [ "$1" != -- ]; do
        command+=("$1")
        shift
    done
    shift
    [ "$(cat "$stamp" 2>/dev/null)" != "$*" ] || return 0
    echo "setup: installing $* into $directory"
    mkdir -p "$directory"
    "${command[@]}" "$directory" "$@"
    echo "$*" >"$stamp"
}
python_packages() {
    python3 -m venv "$1"
    "$1/bin/pip" install -q --disable-pip-version-check "${@:2}"
}
node_packages() {
    npm install --prefix "$1" --no-save --no-package-lock --no-audit --no-fund --loglevel=error "${@:2}"
}
maven_packages() {
    local package
    for package in "${@:2}"; do
        mvn -q -B dependency:copy "-Dartifact=$package" "-DoutputDirectory=$1"
    done
}
install "${VENV:-$cache/venv}" python_packages -- "psycopg[binary]==3.3.*" "psycopg2-binary==2.9.*" "asyncpg==0.32.*" \
    "sqlalchemy[asyncio]==2.1.*" "deltalake==1.*" pyarrow pandas \
    "adbc_driver_flightsql==1.*" "adbc_driver_manager==1.*"
# A place of its own: it pins what others want newer.
install "$cache/venv-dbt" python_packages -- "dbt-materialize==1.9.*" "dbt-core==1.10.*"
install "$cache/node" node_packages -- pg@8.23.1 pg-cursor@2.22.1 pg-query-stream@4.17.0
install "$cache/jdbc" maven_packages -- org.postgresql:postgresql:42.7.8

# Servers for the tests: Kafka, a schema registry, Kafka Connect, MySQL, MariaDB.
"$(dirname "${BASH_SOURCE[0]}")/../tests/servers/install.sh"
