"""Enters the server in a fresh process of its own: not a module to import.

The interpreter may be that of a virtual environment that the package is not installed in, so the extension is loaded
from beside this file.
"""

import sys

here = __file__.rpartition("/")[0]
# A script's directory comes first in sys.path, but with PYTHONSAFEPATH; the application's modules are not to be looked for here.
if not getattr(sys.flags, "safe_path", False):
    sys.path.pop(0)

import os
# Not `importlib.util`, which brings ten modules more into every process.
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec


def load():
    """The extension module, from its file."""
    for suffix in EXTENSION_SUFFIXES:
        path = os.path.join(here, "_rwsgi" + suffix)
        if os.path.exists(path):
            loader = ExtensionFileLoader("rwsgi._rwsgi", path)
            module = loader.create_module(ModuleSpec(loader.name, loader, origin=path))
            loader.exec_module(module)
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
