"""Gives each request to the application that is mounted at the beginning of its path."""


def dispatcher(default, mounts, move_prefix):
    """`mounts` is a list of prefixes and applications; `move_prefix` moves the prefix from PATH_INFO to SCRIPT_NAME."""
    by_prefix = dict(mounts)
    longest_first = sorted(by_prefix.items(), key=lambda mount: len(mount[0]), reverse=True)

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        script_name = environ.get("SCRIPT_NAME", "")
        # A proxy that has taken the prefix off says so.
        if script_name in by_prefix:
            return by_prefix[script_name](environ, start_response)
        for prefix, mounted in longest_first:
            if path == prefix or path.startswith(prefix + "/"):
                if move_prefix:
                    environ["SCRIPT_NAME"] = script_name + prefix
                    environ["PATH_INFO"] = path[len(prefix):]
                return mounted(environ, start_response)
        if default is not None:
            return default(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"nothing is mounted here\n"]

    return application
