"""mailman-web's settings, with SQLite and without Mailman's core."""

import os

from mailman_web.settings.base import *  # noqa: F403
from mailman_web.settings.mailman import *  # noqa: F403

ROOT = os.environ["ROOT"]
SECRET_KEY = "not-a-secret"
ALLOWED_HOSTS = ["localhost"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{ROOT}/mailman-web.db", "OPTIONS": {"timeout": 30}}
}
STATIC_ROOT = f"{ROOT}/static"
LOGGING["handlers"]["file"]["filename"] = f"{ROOT}/logs/mailmanweb.log"  # noqa: F405
HAYSTACK_CONNECTIONS = {
    "default": {"ENGINE": "haystack.backends.whoosh_backend.WhooshEngine", "PATH": f"{ROOT}/fulltext_index"}
}
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ACCOUNT_EMAIL_VERIFICATION = "none"
# The core listens nowhere.
MAILMAN_REST_API_URL = "http://127.0.0.1:9"
COMPRESS_PRECOMPILERS = (
    ("text/x-scss", "pysassc -t compressed {infile} {outfile}"),
    ("text/x-sass", "pysassc -t compressed {infile} {outfile}"),
)
