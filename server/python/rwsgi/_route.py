"""Tells the server which route a request is of. Under another server there is nobody to tell."""

from typing import Any, Callable, MutableMapping, Optional

_set_route: Optional[Callable[[str], None]]
try:
    # Inside the server that is its own module; elsewhere it is this package, which has none.
    from rwsgi import set_route as _set_route
except ImportError:
    _set_route = None


def name_route(name: Any, environ: Optional[MutableMapping[str, Any]] = None) -> None:
    """Names the route of the request that this thread serves; does nothing where there is no name."""
    if not name:
        return
    if environ is not None:
        # For what the application runs in another thread, and for others who want to know.
        environ["rwsgi.route"] = str(name)
    if _set_route is not None:
        _set_route(str(name))
