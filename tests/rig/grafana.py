"""Grafana's own schema of dashboards: the types of `grafana-foundation-sdk`, which Grafana generates from its CUE sources.

`faults()` reads a dashboard's JSON against those types: keys that they do not have, keys that are missing, and values of
another type. Grafana itself drops what it does not know, without a word.
"""

from __future__ import annotations

import enum
import importlib
import typing
from typing import Any, Iterator

MODELS = "grafana_foundation_sdk.models"
# The schema leaves annotations open, for what their data source wants of them. These Prometheus's reads.
OF_THE_DATA_SOURCE = {"AnnotationQuery": {"step", "titleFormat", "textFormat", "tagKeys"}}


class _Mark:
    """Stands in an attribute, to find the key that `to_json` gives it."""


def _keys(kind: type) -> tuple[dict[str, Any], set[str]]:
    """The keys of a type's JSON with the type of each, and those that must be there."""
    hints = typing.get_type_hints(kind)
    instance = kind()
    for name in hints:
        setattr(instance, name, None)
    required = set(instance.to_json())
    for name in hints:
        setattr(instance, name, _Mark())
    names = {id(value): name for name, value in vars(instance).items()}
    return {key: hints[names[id(value)]] for key, value in instance.to_json().items()}, required


def _model(kind: str, name: str) -> Any:
    """A type of a panel's or data source's kind; one that it does not have is anything."""
    return getattr(importlib.import_module(f"{MODELS}.{kind.replace('-', '')}"), name, object)


def _object(value: Any, kind: type, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: {value!r} is no object"
        return
    known, required = _keys(kind)
    yield from (f"{at}: {kind.__name__} needs {key}" for key in sorted(required - set(value)))
    for key, inner in value.items():
        if key in OF_THE_DATA_SOURCE.get(kind.__name__, ()):
            continue
        if key not in known:
            yield f"{at}: {kind.__name__} has no {key}"
            continue
        wanted = known[key]
        if kind.__name__ == "Panel" and key == "options":
            wanted = _model(value["type"], "Options")
        elif kind.__name__ == "Panel" and key == "targets":
            wanted = list[_model(value["datasource"]["type"], "Dataquery")]
        elif kind.__name__ == "Panel" and key == "fieldConfig":
            custom = inner.get("defaults", {}).get("custom")
            if custom is not None:
                yield from check(custom, _model(value["type"], "FieldConfig"), f"{at}.{key}.defaults.custom")
        yield from check(inner, wanted, f"{at}.{key}")


def check(value: Any, kind: Any, at: str) -> Iterator[str]:
    """What is wrong with a value that should be of this type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (object, Any):
        return
    if origin is typing.Union:
        tried = [list(check(value, each, at)) for each in arguments]
        if all(tried):
            yield from min(tried, key=len)
    elif origin is typing.Literal:
        if value not in arguments:
            yield f"{at}: {value!r} is none of {arguments}"
    elif origin is list and isinstance(value, list):
        for number, element in enumerate(value):
            yield from check(element, arguments[0], f"{at}[{number}]")
    elif origin is dict and isinstance(value, dict):
        for key, element in value.items():
            yield from check(element, arguments[1], f"{at}.{key}")
    elif origin is not None:
        yield f"{at}: {value!r} is no {origin.__name__}"
    elif issubclass(kind, enum.Enum):
        if value not in [each.value for each in kind]:
            yield f"{at}: {value!r} is none of {[each.value for each in kind]}"
    elif hasattr(kind, "to_json"):
        yield from _object(value, kind, at)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield f"{at}: {value!r} is no number"
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield f"{at}: {value!r} is no {kind.__name__}"


def faults(dashboard: Any) -> list[str]:
    """What Grafana's schema says against a dashboard, each with its place; empty when it is right."""
    return list(check(dashboard, _model("dashboard", "Dashboard"), "dashboard"))
