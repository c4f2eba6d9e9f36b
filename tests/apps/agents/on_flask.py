"""Nothing of any agent: what an agent's launcher or `import` finds."""

import os

from flask import Flask

app = application = Flask(__name__)


@app.get("/work/<token>")
def work(token):
    return str(os.getpid())
