"""Calendars and contacts by CalDAV and CardDAV, which Xandikos keeps in git."""

from __future__ import annotations

from applications.dav import login, use_xandikos


def use(browser, root):
    browser.get("/", 401)
    login(browser, "user1", "wrong")
    browser.get("/", 401)
    login(browser, "user1", "password1")
    use_xandikos(browser, "/dav/user1/")
