"""The same with Django; its settings are in django_settings.py."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_settings")

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402


def work(request, token):
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("work/<token>", work)]
application = get_wsgi_application()
