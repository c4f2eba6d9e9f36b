"""The least that Django runs with: no database, no sessions."""

SECRET_KEY = "an example's key is no secret"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "demo.urls"
USE_TZ = True
