"""Routes of Pyramid: `config.include("rwsgi.pyramid")`."""

from typing import Any

from ._route import name_route


def includeme(config: Any) -> None:
    """Names each request's route by its pattern, such as `/users/{pk}/orders`."""
    from pyramid.events import ContextFound

    def found(event: Any) -> None:
        request = event.request
        route = getattr(request, "matched_route", None)
        if route is not None:
            name_route("/" + route.pattern.lstrip("/"), request.environ)

    config.add_subscriber(found, ContextFound)
