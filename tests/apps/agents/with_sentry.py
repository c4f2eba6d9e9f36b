"""As Sentry's documentation has it for Flask."""

import os

import sentry_sdk

sentry_sdk.init(dsn=os.environ["SENTRY_DSN"], traces_sample_rate=1.0)

from on_flask import app, application  # noqa: E402, F401
