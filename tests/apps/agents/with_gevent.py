"""An application that replaces what blocks by gevent's, as for `uwsgi --gevent`."""

from gevent import monkey

monkey.patch_all()

import threading  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
import gevent.pool  # noqa: E402

together = threading.Barrier(4)
waits = gevent.pool.Pool(50)


def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/together":
        # Requests of several threads wait for each other.
        return [b"%d" % (together.wait(20) >= 0)]
    # Greenlets of one request run side by side.
    asleep, most = 0, 0

    def job(number):
        nonlocal asleep, most
        asleep += 1
        most = max(most, asleep)
        time.sleep(0.1)
        asleep -= 1
        return number

    jobs = gevent.pool.Pool(50).map(job, range(50))
    return [b"%d %d" % (sum(jobs), most > 1)]
