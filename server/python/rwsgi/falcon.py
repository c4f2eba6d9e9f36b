"""Routes of Falcon: `falcon.App(middleware=[rwsgi.falcon.RouteMiddleware()])`."""

from typing import Any

from ._route import name_route


class RouteMiddleware:
    """Names each request's route by its URI template, such as `/users/{pk:int}/orders`."""

    def process_resource(self, req: Any, resp: Any, resource: Any, params: Any) -> None:
        """Called when Falcon knows the resource, before it is called."""
        name_route(req.uri_template, req.env)
