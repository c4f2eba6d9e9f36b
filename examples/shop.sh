#!/bin/sh
# Starts the shop of docs/find-it.md, a load of at most ten minutes that brings out one fault, and rtop. Leaving rtop stops
# everything.
#
#     shop.sh slow-query | leak | gil-hog | stuck-lock | none
set -eu
here=${0%/*}
[ "$here" != "$0" ] || here=.
set -- shop/shop.ini python3 shop/load.py 127.0.0.1:9090 "${1:-none}" 600
. "$here/watch.sh"
