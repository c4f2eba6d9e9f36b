"""Lets `import` find modules whose source is inside the server."""

import importlib.abc
import importlib.util
import sys


class Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, name, path=None, target=None):
        if name in self.sources:
            return importlib.util.spec_from_loader(name, self, origin="rwsgi")
        return None

    def get_source(self, name):
        return self.sources[name]


def install(sources):
    # First: what stands in site-packages under that name may be another server's.
    sys.meta_path.insert(0, Finder(sources))
