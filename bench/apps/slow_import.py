"""An application that takes 2 s to import, for reloads."""

import time

from hello import application  # noqa: F401

time.sleep(2)
