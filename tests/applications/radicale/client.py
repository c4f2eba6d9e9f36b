"""A calendar and an address book by CalDAV and CardDAV: made, filled, changed, searched, moved and deleted."""

from __future__ import annotations

from applications.dav import BOOK, CARD, PROPERTIES, QUERY, dav, event, login

RENAMED = '<propertyupdate xmlns="DAV:"><set><prop><displayname>Work</displayname></prop></set></propertyupdate>'


def use(browser, root):
    browser.get("/", 302)
    browser.get("/.web/")
    browser.get("/.web/css/main.css")
    browser.get("/.web/nothing.js", 404)
    dav(browser, "PROPFIND", "/tester/", 401, PROPERTIES)
    login(browser, "tester", "wrong")
    dav(browser, "PROPFIND", "/tester/", 401, PROPERTIES)
    login(browser, "tester", "open-sesame")
    dav(browser, "OPTIONS", "/tester/", 200)
    dav(browser, "PROPFIND", "/tester/", 207, PROPERTIES, Depth="1")
    dav(browser, "PROPFIND", "/other/", 403, PROPERTIES)
    dav(browser, "MKCALENDAR", "/tester/work/", 201)
    dav(browser, "MKCOL", "/tester/people/", 201, BOOK)
    first = dav(browser, "PUT", "/tester/work/1.ics", 201, event("first"), If_None_Match="*")
    dav(browser, "PUT", "/tester/work/1.ics", 412, event("late"), If_None_Match="*")
    dav(browser, "PUT", "/tester/work/1.ics", 204, event("second"), If_Match=first.answer.header("ETag"))
    dav(browser, "PUT", "/tester/work/1.ics", 412, event("third"), If_Match=first.answer.header("ETag"))
    dav(browser, "PUT", "/tester/people/1.vcf", 201, CARD)
    dav(browser, "PUT", "/tester/work/bad.ics", 400, "no calendar")
    # Two megabytes, which are more than any buffer.
    dav(browser, "PUT", "/tester/work/1.ics", 204, event("large", "x" * 2_000_000))
    assert len(browser.get("/tester/work/1.ics").answer.body) > 2_000_000
    browser.head("/tester/work/1.ics")
    dav(browser, "PUT", "/tester/work/1.ics", 204, event("small again"))
    assert "small again" in dav(browser, "REPORT", "/tester/work/", 207, QUERY, Depth="1").text
    moved = f"http://localhost:{browser.address.split(':')[1]}/tester/work/moved%20here.ics"
    dav(browser, "MOVE", "/tester/work/1.ics", 201, Destination=moved)
    browser.get("/tester/work/1.ics", 404)
    browser.get("/tester/work/moved%20here.ics")
    browser.get("/tester/work/")
    dav(browser, "PROPPATCH", "/tester/work/", 207, RENAMED)
    dav(browser, "DELETE", "/tester/work/", 200)
    browser.get("/tester/work/", 404)
    assert not (root / "collections/collection-root/tester/work").exists()
