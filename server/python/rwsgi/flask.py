"""Routes of Flask: `rwsgi.flask.name_routes(app)`."""

from typing import Any

from ._route import name_route


def name_routes(app: Any) -> Any:
    """Names each request's route as its URL rule has it, such as `/users/<int:pk>/orders`. Returns the application."""
    from flask import request

    def before_request() -> None:
        rule = request.url_rule
        if rule is not None:
            name_route(rule.rule, request.environ)

    # First of all: another may answer in the view's place.
    app.before_request_funcs.setdefault(None, []).insert(0, before_request)
    return app
