"""Somebody draws graphs, reads data in every format, saves a dashboard and a graph, and looks at the administration."""

from __future__ import annotations


def use(browser, root):
    browser.get("/")
    browser.get("/account/login")
    browser.post("/account/login", {"username": "admin", "password": "wrong", "nextPage": "/"}, 200)
    browser.follow(browser.post("/account/login", {"username": "admin", "password": "open-sesame", "nextPage": "/"}))
    browser.get("/metrics/find?query=*")
    browser.get("/metrics/index.json")
    # What is drawn depends on the minute, but for a range without data.
    empty = "from=00:00_20200101&until=00:10_20200101"
    for kind in ("json", "csv", "raw", "pickle", "svg"):
        browser.get(f"/render?target=servers.one&format={kind}&{empty}&noCache=1")
    drawn = browser.get("/render?target=summarize(servers.one,%2210min%22)&from=-20h&width=1500&height=1200")
    assert drawn.answer.body.startswith(b"\x89PNG")
    browser.exchanges.pop()
    # A large form, as a dashboard sends.
    targets = "&".join(f"target=alias(servers.one,%22{number}%22)" for number in range(20))
    body = f"{targets}&format=json&{empty}&padding={'x' * 1_000_000}".encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    browser.expect(200, browser.request("POST", "/render", kind, body))
    browser.head("/render?target=servers.one&format=json&" + empty)
    browser.get("/render?target=nonsense(&format=json")
    browser.post("/dashboard/save/mine", {"state": '{"name": "mine"}'}, 200)
    browser.get("/dashboard/find/?query=mi")
    browser.get("/dashboard/load/mine")
    browser.get("/composer/")
    browser.get("/version/")
    # It asks for what Python 3.11 no longer has.
    browser.get("/functions/?grouped=1", 500)
    what = b'{"what": "Gr\\u00fc\\u00dfe", "tags": ["one"], "data": ""}'
    browser.expect(200, browser.request("POST", "/events/", {"Content-Type": "application/json"}, what))
    browser.get("/events/")
    browser.get("/admin/")
    browser.get("/admin/auth/user/")
    browser.get("/nowhere", 404)
    browser.get("/account/logout", 302)
    browser.get("/admin/", 302)
