# For demo.sh and shop.sh, which read this file: starts a server, a load that ends by itself, and rtop in the foreground.
# Leaving rtop stops everything.
#
# $here is this directory. $1 is the server's ini file, which listens on 127.0.0.1:9090, with stats at 127.0.0.1:9191. What
# follows is the command of the load.

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

for program in rwsgi rtop python3; do
    command -v "$program" >/dev/null 2>&1 ||
        fail "$program is not installed, or not in PATH. ./demo, at the root of the sources, installs rwsgi and rtop and starts the demo"
done
cd "$here"
ini=$1
shift

http=127.0.0.1:9090
stats=127.0.0.1:9191
work=$(mktemp -d)
server='' load='' monitor=''

stop() {
    trap - EXIT
    trap '' INT TERM HUP
    for process in $monitor $load $server; do
        kill -TERM "$process" 2>/dev/null || :
    done
    wait
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

rwsgi "$ini" >"$work/log" 2>&1 </dev/null &
server=$!
tries=0
until python3 demo_load.py --ready "$http"; do
    tries=$((tries + 1))
    if ! kill -0 "$server" 2>/dev/null || [ "$tries" -gt 150 ]; then
        cat "$work/log" >&2
        fail "the server did not start (it needs $http and $stats to be free)"
    fi
    sleep 0.2
done
# Something else may answer on that port, when ours could not have it.
if ! kill -0 "$server" 2>/dev/null; then
    cat "$work/log" >&2
    fail "the server did not start (it needs $http and $stats to be free)"
fi

"$@" </dev/null >/dev/null 2>&1 &
load=$!

# In the background, so that a signal to this script is acted on while rtop runs; its terminal stays its own.
exec 3<&0
status=0
rtop "$stats" --frequency 1 <&3 &
monitor=$!
wait "$monitor" || status=$?
monitor=''
exit "$status"
