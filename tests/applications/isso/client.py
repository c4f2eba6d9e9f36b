"""Readers comment, answer, vote and change their minds; the administrator moderates."""

from __future__ import annotations

import json


def call(browser, method: str, target: str, expect: int, body: object = None):
    content = None if body is None else json.dumps(body).encode()
    page = browser.request(method, target, {"Content-Type": "application/json", "Origin": "http://localhost"}, content)
    return browser.expect(expect, page)


def use(browser, root):
    browser.again(browser.get("/js/embed.min.js"))
    browser.head("/js/embed.min.js")
    call(browser, "OPTIONS", "/new?uri=%2Fpost%2F", 200)
    call(browser, "GET", "/?uri=%2Fpost%2F", 200)
    made = call(browser, "POST", "/new?uri=%2Fpost%2F", 202, {"text": "Gr\u00fc\u00dfe, *all*", "author": "Zo\u00eb", "title": "Post"})
    call(browser, "POST", "/new?uri=%2Fpost%2F", 400, {"text": ""})
    large = json.dumps({"text": "x" * 10_000_000}).encode()
    browser.refused(413, "POST", "/new?uri=%2Fpost%2F", {"Content-Type": "application/json"}, large)
    number = json.loads(made.text)["id"]
    call(browser, "PUT", f"/id/{number}", 200, {"text": "Changed <script>"})
    call(browser, "GET", "/id/99", 404)

    # The administrator, with cookies of a browser of their own.
    reader, browser.cookies = browser.cookies, {}
    browser.get("/admin/")
    browser.post("/login/", {"password": "wrong"}, 200)
    browser.post("/login/", {"password": "open-sesame"}, 302)
    waiting = browser.get("/admin/?mode=2")
    assert "Changed" in waiting.text
    browser.get("/admin/?mode=1")
    browser.cookies = reader

    call(browser, "GET", f"/id/{number}?plain=1", 200)
    call(browser, "POST", f"/id/{number}/like", 200)
    call(browser, "POST", f"/id/{number}/dislike", 200)
    call(browser, "POST", "/count", 200, ["/post/", "/other/"])
    call(browser, "POST", "/preview", 200, {"text": "# Title\n\n`code`"})
    call(browser, "GET", "/feed?uri=%2Fpost%2F", 404)
    call(browser, "DELETE", f"/id/{number}", 200)
    browser.get("/nowhere", 404)
    browser.get("/demo", 308)
