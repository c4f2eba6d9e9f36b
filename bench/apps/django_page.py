"""A page by Django, with the middleware that a new project has where it needs no database: one template, a few values."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import engines
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for measuring",
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)

PAGE = """<!doctype html><title>{{ title }}</title><h1>{{ title }}</h1>
<ul>{% for row in rows %}<li>{{ row }}</li>{% endfor %}</ul>
"""
template = None


def index(request):
    global template
    if template is None:
        template = engines["django"].from_string(PAGE)
    return HttpResponse(template.render({"title": "Orders", "rows": range(10)}, request))


urlpatterns = [path("", index)]
application = get_wsgi_application()
