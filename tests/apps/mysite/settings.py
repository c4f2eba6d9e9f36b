"""The least that Django runs with."""

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "mysite.urls"
DATA_UPLOAD_MAX_MEMORY_SIZE = None
USE_TZ = True
