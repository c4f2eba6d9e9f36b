"""Calendars and contacts over WebDAV: what the clients of Radicale and Xandikos send."""

from __future__ import annotations

from base64 import b64encode

EVENT = """BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:-//client//EN\r
BEGIN:VEVENT\r
UID:event-1\r
DTSTAMP:20260102T030405Z\r
DTSTART:20261201T100000Z\r
DTEND:20261201T110000Z\r
SUMMARY:Gr\u00fc\u00dfe {summary}\r
DESCRIPTION:{filler}\r
END:VEVENT\r
END:VCALENDAR\r
"""
CARD = "BEGIN:VCARD\r\nVERSION:3.0\r\nUID:card-1\r\nFN:Zo\u00eb\r\nN:;Zo\u00eb;;;\r\nEND:VCARD\r\n"
PROPERTIES = """<?xml version="1.0"?><propfind xmlns="DAV:"><prop><resourcetype/><displayname/><getcontenttype/>
<current-user-principal/></prop></propfind>"""
QUERY = """<?xml version="1.0"?><C:calendar-query xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav">
<D:prop><D:getetag/><C:calendar-data/></D:prop><C:filter><C:comp-filter name="VCALENDAR"><C:comp-filter name="VEVENT">
<C:time-range start="20261201T000000Z" end="20261202T000000Z"/></C:comp-filter></C:comp-filter></C:filter></C:calendar-query>"""
BOOK = """<?xml version="1.0"?><mkcol xmlns="DAV:"><set><prop><resourcetype><collection/>
<addressbook xmlns="urn:ietf:params:xml:ns:carddav"/></resourcetype><displayname>People</displayname></prop></set></mkcol>"""


def event(summary: str, filler: str = "") -> bytes:
    """An event, as long as `filler` makes it."""
    return EVENT.format(summary=summary, filler=filler).encode()


def login(browser, name: str, password: str) -> None:
    """Sends a name and a password from here on."""
    browser.headers["Authorization"] = "Basic " + b64encode(f"{name}:{password}".encode()).decode()


def dav(browser, method: str, target: str, expect: int, body: str | bytes = b"", **headers: str):
    """One request, with its body as a calendar for PUT and as XML for others."""
    kind = "text/calendar; charset=utf-8" if method == "PUT" else "text/xml; charset=utf-8"
    content = body.encode() if isinstance(body, str) else body
    sent = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return browser.expect(expect, browser.request(method, target, sent, content))


def use_xandikos(browser, home: str) -> None:
    """What a client does with the calendars of the user whose address this is."""
    calendar = f"{home}calendars/calendar"
    browser.get("/")
    browser.get(home)
    dav(browser, "OPTIONS", home, 200)
    dav(browser, "PROPFIND", "/", 207, PROPERTIES, Depth="0")
    dav(browser, "PROPFIND", home, 207, PROPERTIES, Depth="1")
    first = dav(browser, "PUT", f"{calendar}/1.ics", 201, event("first"), If_None_Match="*")
    dav(browser, "PUT", f"{calendar}/1.ics", 412, event("late"), If_None_Match="*")
    dav(browser, "PUT", f"{calendar}/1.ics", 204, event("second"), If_Match=first.answer.header("ETag"))
    dav(browser, "PUT", f"{calendar}/1.ics", 412, event("third"), If_Match=first.answer.header("ETag"))
    browser.get(f"{calendar}/1.ics")
    browser.head(f"{calendar}/1.ics")
    dav(browser, "PUT", f"{calendar}/large.ics", 201, event("large", "x" * 1_000_000).replace(b"event-1", b"event-2"))
    assert len(browser.get(f"{calendar}/large.ics").answer.body) > 1_000_000
    dav(browser, "DELETE", f"{calendar}/large.ics", 204)
    assert "second" in dav(browser, "REPORT", f"{calendar}/", 207, QUERY, Depth="1").text
    dav(browser, "MKCALENDAR", f"{home}calendars/other", 201, '<mkcalendar xmlns="urn:ietf:params:xml:ns:caldav"/>')
    dav(browser, "PUT", f"{calendar}/bad.ics", 412, "no calendar")
    browser.get("/nowhere", 404)
    dav(browser, "DELETE", f"{calendar}/1.ics", 204)
    browser.get(f"{calendar}/1.ics", 404)
    browser.get("/.well-known/caldav", 404)
