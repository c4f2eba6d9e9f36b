"""Real applications from PyPI, as their authors deploy them with uWSGI, and clients that use them.

Each directory has `uwsgi.ini` (the application's own, see where from in it), `requirements.txt` (made by `update`),
`prepare` (makes what the application keeps on disk) and `client.py`. `table.py` lists them.
"""
