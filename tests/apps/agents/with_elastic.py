"""As Elastic's documentation has it for Flask."""

from elasticapm.contrib.flask import ElasticAPM

from on_flask import app, application  # noqa: F401

ElasticAPM(app)
