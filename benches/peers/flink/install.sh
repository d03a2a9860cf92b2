#!/usr/bin/env bash
# Installs Flink, the peer of the Kafka benchmark, into ${FLOWSTONE_CACHE:-$HOME/.cache/flowstone}/peers/flink (160 MB). Idempotent, and quick when nothing is missing.
# Needs what deploy/setup.sh installs (java, javac, mvn), and no privileges.
#
# A stamp names what is there, so that a change is noticed. What Maven fetches is compared with flink.sha256. SUMS_UPDATE=1 writes the sums anew: after a change of a
# version, read the difference.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
peers="${FLOWSTONE_CACHE:-$HOME/.cache/flowstone}/peers"
mkdir -p "$peers"
# One installer at a time: checkouts share the cache.
exec 9>"$peers/.lock"
flock 9

fail() {
    echo "benches/peers/flink: $*" >&2
    exit 1
}

stamp() {
    cat "$here"/{install.sh,flink.xml,flink.sha256,FlinkPeer.java,log4j2.properties,run} | sha256sum | cut -d' ' -f1
}

if [ -z "${SUMS_UPDATE:-}" ] && [ "$(cat "$peers/flink/.installed" 2>/dev/null)" = "$(stamp)" ]; then
    exit 0
fi
echo "benches/peers/flink: installing Flink"
scratch="$(mktemp -d "$peers/.scratch.XXXXXX")"
trap 'rm -rf "$scratch"' EXIT
new="$scratch/flink"
mkdir -p "$new/lib" "$new/classes"

# The repository has no checksum for each of its files (mvn -C would refuse them): they are compared with ours.
mvn -B -ntp -q -f "$here/flink.xml" "-Dmaven.repo.local=$scratch/maven" dependency:copy-dependencies "-DoutputDirectory=$new/lib" >"$scratch/log" 2>&1 || {
    tail -n 20 "$scratch/log" >&2
    fail "mvn failed for flink.xml"
}
if [ -n "${SUMS_UPDATE:-}" ]; then
    (cd "$new/lib" && LC_ALL=C sha256sum -- *) >"$here/flink.sha256"
fi
(cd "$new/lib" && sha256sum --check --strict --quiet "$here/flink.sha256") || fail "what was fetched differs from flink.sha256"
[ "$(cd "$new/lib" && LC_ALL=C ls)" = "$(sed 's/^[0-9a-f]* [ *]//' "$here/flink.sha256" | LC_ALL=C sort)" ] || fail "more was fetched than flink.sha256 lists"

javac -proc:none -cp "$new/lib/*" -d "$new/classes" "$here/FlinkPeer.java" || fail "FlinkPeer.java does not compile"
cp "$here/log4j2.properties" "$here/run" "$new"
stamp >"$new/.installed"
rm -rf "$peers/flink"
mv "$new" "$peers/flink"
