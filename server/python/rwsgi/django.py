"""Routes of Django: put `"rwsgi.django.RouteMiddleware"` into `MIDDLEWARE`."""

from typing import Any, Callable

from ._route import name_route


class RouteMiddleware:
    """Names each request's route as the project's `urls.py` has it, such as `/users/<int:pk>/orders`."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        return self.get_response(request)

    def process_view(self, request: Any, view_func: Any, view_args: Any, view_kwargs: Any) -> None:
        """Called when Django knows the view, before it is called: so the route is known while the view runs."""
        match = request.resolver_match
        if match is not None:
            # An empty route is that of "/".
            name_route("/" + (match.route or "").lstrip("^/"), getattr(request, "environ", None))
