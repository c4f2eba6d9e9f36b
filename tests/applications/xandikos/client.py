"""Calendars and contacts by CalDAV and CardDAV, which Xandikos keeps in git."""

from __future__ import annotations

from applications.dav import use_xandikos


def use(browser, root):
    use_xandikos(browser, "/user/")
