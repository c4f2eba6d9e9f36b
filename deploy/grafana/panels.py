"""What dashboards are made of, as Grafana's JSON: panels, variables, annotations, and the places of panels."""

from __future__ import annotations

from typing import Any

from queries import histogram

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Of Grafana 10.4; later ones read it too.
SCHEMA = 39

# What 0 and 1 mean.
YES = {"0": {"text": "no", "color": "red", "index": 0}, "1": {"text": "yes", "color": "green", "index": 1}}


def query(expr: str, legend: str = "{{instance}}", **more: Any) -> Json:
    """A query, of a series for each server unless its legend says otherwise."""
    return {"datasource": DATASOURCE, "expr": expr, "legendFormat": legend, "range": True, **more}


def column(expr: str) -> Json:
    """A query for a table: one number for each row, now."""
    return query(expr, "__auto", instant=True, range=False, format="table")


def _panel(
    kind: str, title: str, text: str, queries: list[Json], size: tuple[int, int], defaults: Json, options: Json
) -> Json:
    targets = [{**each, "refId": chr(ord("A") + number)} for number, each in enumerate(queries)]
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": DATASOURCE,
        "gridPos": {"w": size[0], "h": size[1], "x": 0, "y": 0},
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def lines(
    title: str,
    text: str,
    *queries: Json,
    unit: str = "short",
    stacked: bool = False,
    bars: bool = False,
    least: float | None = 0,
    width: int = 8,
) -> Json:
    """Lines over time, or bars."""
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 60 if bars else 25 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    defaults = {"unit": unit, "custom": custom, **({"min": least} if least is not None else {})}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, text, list(queries), (width, 8), defaults, options)


def number(
    title: str,
    text: str,
    expr: str,
    unit: str = "short",
    steps: tuple[float, float] | None = None,
    legend: str = "",
    words: Json | None = None,
    width: int = 4,
) -> Json:
    """The last number, large. Green below the first step, orange from it, red from the second."""
    colours = [{"color": "green", "value": None}]
    if steps is not None:
        colours += [{"color": "orange", "value": steps[0]}, {"color": "red", "value": steps[1]}]
    defaults: Json = {"unit": unit, "thresholds": {"mode": "absolute", "steps": colours}, "mappings": []}
    if words is not None:
        defaults["mappings"] = [{"type": "value", "options": words}]
    options = {
        "graphMode": "none" if legend or words else "area",
        "colorMode": "value",
        "justifyMode": "auto",
        "textMode": "name" if legend else "auto",
        "orientation": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
    }
    return _panel("stat", title, text, [query(expr, legend or "__auto")], (width, 4), defaults, options)


def heat(title: str, text: str, metric: str, width: int = 16) -> Json:
    """A heat map of a histogram of seconds."""
    options = {
        "calculate": False,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
        },
        "cellGap": 1,
        "filterValues": {"le": 1e-9},
        "yAxis": {"unit": "s", "axisPlacement": "left", "reverse": False},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True},
        "legend": {"show": True},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
    }
    # Buckets without a request in them are cut away by `filterValues`.
    buckets = query(histogram(metric, function="increase"), "{{le}}", format="heatmap")
    return _panel("heatmap", title, text, [buckets], (width, 8), {}, options)


def states(title: str, text: str, *queries: Json, words: Json, width: int = 8) -> Json:
    """Bars whose colour is a state."""
    defaults = {"custom": {"lineWidth": 0, "fillOpacity": 70}, "mappings": [{"type": "value", "options": words}]}
    options = {
        "showValue": "never",
        "rowHeight": 0.9,
        "mergeValues": True,
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _panel("state-timeline", title, text, list(queries), (width, 8), defaults, options)


def table(
    title: str,
    text: str,
    key: str,
    columns: list[tuple[str, str, str]],
    link: str = "",
    width: int = 24,
    more_keys: dict[str, str] | None = None,
) -> Json:
    """A row for each value of the label `key`, and columns: a title, a unit, a query. Sorted by the first column."""
    defaults = {"custom": {"align": "auto", "inspect": False}}
    options = {
        "showHeader": True,
        "frameIndex": 0,
        "cellHeight": "sm",
        "sortBy": [{"displayName": columns[0][0], "desc": True}],
    }
    panel = _panel("table", title, text, [column(expr) for _, _, expr in columns], (width, 9), defaults, options)
    names = {f"Value #{target['refId']}": title for target, (title, _, _) in zip(panel["targets"], columns)}
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True},
                "indexByName": {name: place for place, name in enumerate([key, *(more_keys or {}), *names])},
                "renameByName": {**names, **(more_keys or {})},
            },
        },
    ]
    overrides = panel["fieldConfig"]["overrides"]
    for title, unit, _ in columns:
        overrides.append({"matcher": {"id": "byName", "options": title}, "properties": [{"id": "unit", "value": unit}]})
    if link:
        links = [{"title": "Open its dashboard", "url": link, "targetBlank": False}]
        overrides.append({"matcher": {"id": "byName", "options": key}, "properties": [{"id": "links", "value": links}]})
    return panel


def row(title: str) -> Json:
    """A line with a title, across."""
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "panels": [],
        "gridPos": {"w": 24, "h": 1, "x": 0, "y": 0},
    }


def _placed(panels: list[Json]) -> list[Json]:
    """Side by side from the left, as long as there is room in a line."""
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        place = panel["gridPos"]
        if x + place["w"] > 24:
            x, y, height = 0, y + height, 0
        place["x"], place["y"], panel["id"] = x, y, number
        x, height = x + place["w"], max(height, place["h"])
    return panels


def _variable(name: str, label: str, values: str, several: bool) -> Json:
    everything = {"text": ["All"], "value": ["$__all"]} if several else {}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": values, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        **({"allValue": ".*", "current": everything} if several else {}),
    }


def _annotation(name: str, colour: str, expr: str, title: str) -> Json:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expr,
        "step": "1m",
        "titleFormat": title,
        "tagKeys": "job,instance",
    }


def dashboard(
    uid: str,
    title: str,
    text: str,
    panels: list[Json],
    server: str,
    several: bool,
    annotations: tuple[tuple[str, str, str, str], ...] = (),
) -> Json:
    """A dashboard. `server` is a metric that every server has that it is for; with `several` all are chosen at first."""
    source = {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1}
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["rwsgi"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [
                source,
                _variable("job", "Job", f"label_values({server}, job)", several),
                _variable("instance", "Server", f'label_values({server}{{job=~"$job"}}, instance)', several),
            ]
        },
        "annotations": {"list": [_annotation(*each) for each in annotations]},
        "links": [
            {
                "type": "dashboards",
                "title": "rwsgi",
                "icon": "external link",
                "tooltip": "",
                "tags": ["rwsgi"],
                "asDropdown": False,
                "targetBlank": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": _placed(panels),
    }
