"""An application to try the image with."""

import bottle

application = bottle.Bottle()


@application.get("/")
def hello():
    return "Hello\n"
