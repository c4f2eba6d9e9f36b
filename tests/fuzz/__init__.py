"""A fuzzer: sends mutated requests to every kind of socket, and checks that other clients do not notice.

| module | what it does |
| --- | --- |
| `reading` | what a stream of bytes means by RFC 9112 and by the uwsgi protocol: shares no code with the server |
| `seeds` | the shapes that are mutated, those of the other tests among them |
| `mutate` | a case from a seed and a number: bytes, how they are cut, how the connection ends |
| `site` | the server under test, and one connection to it |
| `oracle` | whether the answers to a case are those that its bytes mean |
| `state` | the server beside it: processes, memory, descriptors, counts |
| `campaign` | many cases, with innocent requests beside them |
| `application` | what the server runs: it answers what it saw, and writes it down |

`python -m tests.fuzz --help` runs it by hand, `tests/test_fuzz.py` in its short form.
"""

import sys
from pathlib import Path

# `rig`, and the tables of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
