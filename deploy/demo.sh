#!/usr/bin/env bash
# Starts a node with the auction generator and three views over it, and prints how to connect. Ctrl-C stops it; the next run resumes.
set -euo pipefail
flowstone="${FLOWSTONE_BIN:-${CARGO_TARGET_DIR:-target}/debug/flowstone}"
data_dir="${DATA_DIR:-./flowstone-data}"
port="${PG_PORT:-6875}"
http="${HTTP_PORT:-6876}"
flight="${FLIGHT_PORT:-6877}"

"$flowstone" serve --data-dir "$data_dir" --pg-listen "127.0.0.1:$port" --http-listen "127.0.0.1:$http" --flight-listen "127.0.0.1:$flight" &
node=$!

# Lets the node commit and stop, and ends with its status; a second Ctrl-C does not cut that short.
stop() {
    local status=0
    trap '' INT TERM
    trap - EXIT
    kill -TERM "$node" 2>/dev/null || true
    wait "$node" || status=$?
    exit $((status ? status : $1))
}
trap 'stop 0' INT TERM
trap 'stop $?' EXIT

for _ in $(seq 300); do
    kill -0 "$node" 2>/dev/null || exit 1
    python3 - "$http" <<'PY' && break
import sys, urllib.request
try:
    urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/readyz", timeout=1)
except OSError:
    sys.exit(1)
PY
    sleep 0.2
done

PGOPTIONS="-c client_min_messages=warning" psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U materialize materialize -f "$(dirname "$0")/demo.sql"

cat <<TEXT

  Flowstone runs. In another terminal:

      psql -h 127.0.0.1 -p $port -U materialize materialize

  and there, for example:

      SELECT * FROM auction_totals;
      SELECT * FROM top_auctions;
      SUBSCRIBE (SELECT * FROM auction_totals);

  A browser shows what it does at http://127.0.0.1:$http/

  Ctrl-C stops it; \`make demo\` again goes on from where it stood.

TEXT
wait "$node"
