"""Somebody signs in to a wiki, writes, uploads, searches, and goes back to an older version."""

from __future__ import annotations


def use(browser, root):
    browser.get("/")
