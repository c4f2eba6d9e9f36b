"""A page by Flask: one route, one template, a few values in it."""

from flask import Flask, render_template_string

app = Flask(__name__)
PAGE = """<!doctype html><title>{{ title }}</title><h1>{{ title }}</h1>
<ul>{% for row in rows %}<li>{{ row }}</li>{% endfor %}</ul>
"""


@app.get("/")
def index():
    return render_template_string(PAGE, title="Orders", rows=range(10))


application = app
