"""Enters the server in a fresh process of its own: not a module to import.

The interpreter may be that of a virtual environment that the package is not installed in, so the extension is loaded
from beside this file.
"""

import sys

here = __file__.rpartition("/")[0]
# A script's directory comes first in sys.path, but with PYTHONSAFEPATH; the application's modules are not to be looked for here.
if not getattr(sys.flags, "safe_path", False):
    sys.path.pop(0)

import importlib.machinery
import importlib.util
import os


def load():
    """The extension module, from its file."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = os.path.join(here, "_rwsgi" + suffix)
        if os.path.exists(path):
            spec = importlib.util.spec_from_file_location("rwsgi._rwsgi", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    version = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        f"rwsgi was not installed for Python {version} ({sys.executable}): "
        "install it with the pip of the environment that home names"
    )


status = load().main([sys.argv[0], *sys.argv[1:]], sys.executable, [os.path.abspath(__file__)])
for stream in (sys.stdout, sys.stderr):
    if stream is not None:
        stream.flush()
# A worker has run what the application registered to be run at exit; the process that loaded it must not.
os._exit(status)
