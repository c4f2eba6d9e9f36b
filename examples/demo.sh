#!/bin/sh
# Starts the demo server, a load of at most ten minutes and 100,000 requests, and rtop. Leaving rtop stops everything.
set -eu
here=${0%/*}
[ "$here" != "$0" ] || here=.
set -- demo.ini python3 demo_load.py 127.0.0.1:9090 600 100000
. "$here/watch.sh"
