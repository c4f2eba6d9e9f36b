"""As Sentry's documentation has it for Flask."""

import os

import sentry_sdk

# By default it waits for two seconds when its worker ends, and drops what it has not sent.
sentry_sdk.init(dsn=os.environ["SENTRY_DSN"], traces_sample_rate=1.0, shutdown_timeout=30)

from on_flask import app, application  # noqa: E402, F401
