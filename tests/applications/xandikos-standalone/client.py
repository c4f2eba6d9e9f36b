"""Calendars and contacts by CalDAV and CardDAV, which Xandikos keeps in git."""

from __future__ import annotations

from applications.dav import PROPERTIES, QUERY, dav, event, login

CALENDAR = "/dav/user1/calendars/calendar"


def use(browser, root):
    browser.get("/", 401)
    login(browser, "user1", "wrong")
    browser.get("/", 401)
    login(browser, "user1", "password1")
    browser.get("/")
    browser.get("/dav/user1/")
    dav(browser, "OPTIONS", "/dav/user1/", 200)
    dav(browser, "PROPFIND", "/", 207, PROPERTIES, Depth="0")
    dav(browser, "PROPFIND", "/dav/user1/", 207, PROPERTIES, Depth="1")
    first = dav(browser, "PUT", f"{CALENDAR}/1.ics", 201, event("first"), If_None_Match="*")
    dav(browser, "PUT", f"{CALENDAR}/1.ics", 412, event("late"), If_None_Match="*")
    dav(browser, "PUT", f"{CALENDAR}/1.ics", 204, event("second"), If_Match=first.answer.header("ETag"))
    dav(browser, "PUT", f"{CALENDAR}/1.ics", 412, event("third"), If_Match=first.answer.header("ETag"))
    browser.get(f"{CALENDAR}/1.ics")
    browser.head(f"{CALENDAR}/1.ics")
    dav(browser, "PUT", f"{CALENDAR}/large.ics", 201, event("large", "x" * 1_000_000).replace(b"event-1", b"event-2"))
    assert len(browser.get(f"{CALENDAR}/large.ics").answer.body) > 1_000_000
    dav(browser, "DELETE", f"{CALENDAR}/large.ics", 204)
    assert "second" in dav(browser, "REPORT", f"{CALENDAR}/", 207, QUERY, Depth="1").text
    dav(browser, "MKCALENDAR", "/dav/user1/calendars/other", 201, '<mkcalendar xmlns="urn:ietf:params:xml:ns:caldav"/>')
    dav(browser, "PUT", f"{CALENDAR}/bad.ics", 412, "no calendar")
    browser.get("/nowhere", 404)
    dav(browser, "DELETE", f"{CALENDAR}/1.ics", 204)
    browser.get(f"{CALENDAR}/1.ics", 404)
    browser.get("/.well-known/caldav", 404)
