"""What the worker's memory is used for. Each function returns the rows and a note, or raises Refused with why not.

A row is (name, count, count before, bytes, bytes before); "before" is None where nothing was seen before.
"""

import gc
import os
import sys
import sysconfig

# Objects that are looked at one by one: with more, every second, third … is, and the counts are multiplied.
MOST_OBJECTS = 500_000
# What an object costs with what hangs on it, in seconds: measured with Python 3.11, an estimate.
SECONDS_EACH = 1.7e-6
ROWS = 40
# The innermost frames of an allocation: enough to get out of a library into the application.
FRAMES = 5

_types_before = None
_lines_before = None
_is_ours = False


def _forget():
    global _types_before, _lines_before
    _types_before = _lines_before = None


# What a process of its own counts later is compared with what it has counted itself.
os.register_at_fork(after_in_child=_forget)


class Refused(Exception):
    """What is asked cannot be done: why, and what to do."""


def _without_collections(report):
    """The many objects of a report would have the collector look through all others."""

    def made(*arguments):
        was_on = gc.isenabled()
        gc.disable()
        try:
            return report(*arguments)
        finally:
            if was_on:
                gc.enable()

    return made


def types_cost():
    count = len(gc.get_objects())
    seconds = min(count, MOST_OBJECTS) * SECONDS_EACH
    return f"counts {count:,} objects of the application: its thread stands still for about {seconds * 1000:.0f} ms"


@_without_collections
def types():
    """All that the garbage collector knows, and the plain values that hang on it."""
    global _types_before
    objects = gc.get_objects()
    total = len(objects)
    step = -(-total // MOST_OBJECTS) or 1
    own = id(objects)
    found = {}
    seen = set()

    def add(thing):
        kind = type(thing)
        try:
            size = sys.getsizeof(thing, 0)
        except Exception:
            size = 0
        entry = found.get(kind)
        if entry is None:
            found[kind] = [1, size]
        else:
            entry[0] += 1
            entry[1] += size

    for thing in objects[::step] if step > 1 else objects:
        if id(thing) == own or thing is found or thing is seen:
            continue
        add(thing)
        # Text, bytes and numbers are unknown to the collector.
        for held in gc.get_referents(thing):
            if type(held) in (str, bytes, bytearray, int, float) and id(held) not in seen:
                seen.add(id(held))
                add(held)
    del objects
    now = {}
    for kind, (count, size) in found.items():
        name = _name(kind)
        known = now.get(name, (0, 0))
        now[name] = (known[0] + count * step, known[1] + size * step)
    rows = _rows(now, _types_before)
    note = "objects made since the worker was forked, by type, with their own size, without what they refer to"
    if step > 1:
        note += f"; every {step}th of {total:,} was counted"
    note += "; growth is since they were counted last" if _types_before is not None else "; ask again for the growth"
    _types_before = now
    return rows, note


def _name(kind):
    try:
        module, name = kind.__module__, kind.__qualname__
        return name if module == "builtins" else f"{module}.{name}"
    except Exception:
        return "?"


def trace_start():
    global _is_ours, _lines_before
    import tracemalloc

    if tracemalloc.is_tracing():
        raise Refused("memory is traced already: trace shows the lines, trace-stop ends it")
    tracemalloc.start(FRAMES)
    _is_ours, _lines_before = True, None
    return [], f"every allocation is recorded from now on, with {FRAMES} frames: code that allocates takes 10 to 20 times as long"


@_without_collections
def trace(group):
    global _lines_before
    import tracemalloc

    if not tracemalloc.is_tracing():
        raise Refused("memory is not traced in this worker: trace-start begins")
    # Python's own grouping (`Snapshot.statistics`) would be traced itself, and takes many times as long.
    traces = tracemalloc.take_snapshot().traces._traces
    now = {}
    for frames, count, size in group(traces):
        name = _line(frames)
        if name is not None:
            known = now.get(name, (0, 0))
            now[name] = (known[0] + count, known[1] + size)
    del traces
    held, peak = tracemalloc.get_traced_memory()
    rows = _rows(now, _lines_before)
    since = "the last look" if _lines_before is not None else "tracing began"
    note = (
        f"what was allocated since tracing began and is still there, {held / 1e6:.1f} MB (peak {peak / 1e6:.1f} MB), by the"
        f" application's line; growth is since {since}; the records take {tracemalloc.get_tracemalloc_memory() / 1e6:.1f} MB"
    )
    _lines_before = now
    return rows, note


def trace_stop():
    global _lines_before, _is_ours
    import tracemalloc

    if not tracemalloc.is_tracing():
        raise Refused("memory is not traced in this worker")
    if not _is_ours:
        raise Refused("the application has begun to trace its memory itself: it goes on")
    tracemalloc.stop()
    _is_ours, _lines_before = False, None
    return [], "memory is not traced any more, and what was recorded is forgotten"


def is_tracing():
    module = sys.modules.get("tracemalloc")
    return module is not None and module.is_tracing()


_LIBRARIES = tuple(
    os.path.join(path, "")
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    for path in {sysconfig.get_paths()[name], os.path.realpath(sysconfig.get_paths()[name])}
)


def _line(frames):
    """The innermost line of the application's own; of a library where there is none. The innermost frame comes first."""
    if frames[0][0] == __file__ or frames[0][0].endswith("tracemalloc.py"):
        return None
    for file, line in frames:
        if not file.startswith("<") and not file.startswith(_LIBRARIES):
            return f"{file}:{line}"
    return f"{frames[0][0]}:{frames[0][1]}"


def frozen():
    """How many objects the collector leaves alone, since the fork server has called gc.freeze()."""
    return gc.get_freeze_count()


def _rows(now, before):
    rows = []
    for name, (count, size) in now.items():
        then = (None, None) if before is None else before.get(name, (0, 0))
        rows.append((name, count, then[0], size, then[1]))
    # What has gone altogether is not a row. What grew comes first, when that is known.
    grown = (lambda row: row[3] - row[4]) if before is not None else (lambda row: 0)
    rows.sort(key=lambda row: (grown(row), row[3]), reverse=True)
    return rows[:ROWS]
