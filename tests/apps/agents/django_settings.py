"""The settings of on_django.py."""

SECRET_KEY = "of a test"
ROOT_URLCONF = "on_django"
ALLOWED_HOSTS = ["*"]
MIDDLEWARE = []
