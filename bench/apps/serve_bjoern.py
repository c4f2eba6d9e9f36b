"""bjoern as its documentation shows it, one socket for all processes: serve_bjoern.py MODULE PORT PROCESSES"""

import importlib
import os
import signal
import sys

import bjoern

module, port, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
bjoern.listen(importlib.import_module(module).application, "127.0.0.1", port)
workers = [os.fork() for _ in range(processes)] if processes > 1 else []
if 0 in workers or not workers:
    bjoern.run()
else:

    def stop(*_):
        for worker in workers:
            os.kill(worker, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    for worker in workers:
        os.waitpid(worker, 0)
