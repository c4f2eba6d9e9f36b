"""fastwsgi as its documentation shows it: serve_fastwsgi.py MODULE PORT PROCESSES"""

import importlib
import sys

import fastwsgi

module, port, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fastwsgi.run(importlib.import_module(module).application, "127.0.0.1", port, workers=processes)
