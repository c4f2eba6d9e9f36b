"""Gives each request to the application that is mounted at the beginning of its path."""


def dispatcher(default, mounts, move_prefix, ignore_announced):
    """`mounts` is a list of prefixes and applications; `move_prefix` moves the prefix from PATH_INFO to SCRIPT_NAME;
    `ignore_announced` has SCRIPT_NAME choose none.

    As in uWSGI a prefix is kept as it was written, with a slash at its end or without, and SCRIPT_NAME is the prefix
    alone, whatever a proxy set there.
    """
    by_prefix = dict(mounts)
    longest_first = sorted(by_prefix, key=len, reverse=True)
    begins = [(prefix.removesuffix("/"), prefix.removesuffix("/") + "/", prefix) for prefix in longest_first]

    def by_path(path):
        for bare, with_slash, prefix in begins:
            if path == bare or path.startswith(with_slash):
                return prefix, by_prefix[prefix]
        return "", None

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        # A proxy that has taken the prefix off says so.
        announced = None if ignore_announced else by_prefix.get(environ.get("SCRIPT_NAME", ""))
        prefix, mounted = by_path(path)
        if environ.pop("rwsgi.script_name_is_moved", False):
            # The rules had it moved first, and may have changed it since.
            mounted = by_prefix.get(environ["SCRIPT_NAME"])
        elif mounted is not None and move_prefix:
            environ["SCRIPT_NAME"] = prefix
            environ["PATH_INFO"] = path[len(prefix):]
        elif announced is not None:
            mounted = announced
        if mounted is None:
            mounted = default
        if mounted is not None:
            return mounted(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"nothing is mounted here\n"]

    return application
