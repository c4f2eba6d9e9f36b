"""A Django application of one file whose caches warm up: templates, lazy imports, translations, and a catalogue that it
keeps in memory, as applications do that ask a database for the same rows again and again."""

import os
import sys

from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="measured",
    USE_I18N=True,
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
        "django.contrib.messages", "django.contrib.staticfiles",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": [
            "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ]},
    }],
)

from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_wsgi_application()

from django.http import HttpResponse  # noqa: E402
from django.template import engines  # noqa: E402
from django.template.loader import get_template  # noqa: E402
from django.urls import path  # noqa: E402

CATALOGUE = {}
PAGE = engines["django"].from_string(
    "<ul>{% for product in products %}<li>{{ product.name|title }} {{ product.price|floatformat:2 }}</li>{% endfor %}</ul>"
)


def product(number):
    """A row that is asked for once and kept."""
    if number not in CATALOGUE:
        CATALOGUE[number] = {
            "id": number,
            "name": f"product number {number}",
            "price": number / 100,
            "tags": [f"tag {number % 97}", f"tag {number % 89} of {number}"],
            "text": f"What can be said of product {number}. " * 4,
        }
    return CATALOGUE[number]


def listing(request, page):
    return HttpResponse(PAGE.render({"products": [product(page * 100 + place) for place in range(100)]}))


def rendered(request):
    # What a first request to the admin compiles.
    for name in ("admin/base_site.html", "admin/change_list.html", "admin/change_form.html", "admin/login.html"):
        get_template(name)
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("list/<int:page>", listing), path("rendered", rendered)]

if os.environ.get("UNFREEZE"):
    import gc

    import uwsgi

    # As if nobody had called gc.freeze before the fork.
    uwsgi.post_fork_hook = gc.unfreeze

if __name__ == "__main__":
    sys.exit("it is served, not run")
