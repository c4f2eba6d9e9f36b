"""As Scout's documentation has it for Flask."""

from scout_apm.flask import ScoutApm

from on_flask import app, application  # noqa: F401

ScoutApm(app)
