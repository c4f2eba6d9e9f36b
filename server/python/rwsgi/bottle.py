"""Routes of Bottle: `app.install(rwsgi.bottle.RoutePlugin())`."""

from typing import Any, Callable

from ._route import name_route


class RoutePlugin:
    """Names each request's route as it was declared, such as `/users/<pk:int>/orders`."""

    name = "rwsgi.routes"
    api = 2

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        """Wraps a route's callback."""
        rule = route.rule

        def named(*arguments: Any, **names: Any) -> Any:
            name_route(rule)
            return callback(*arguments, **names)

        return named
