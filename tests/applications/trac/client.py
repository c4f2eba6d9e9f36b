"""A wiki page, a ticket with a large attachment, a search, the timeline and the administration."""

from __future__ import annotations

from base64 import b64encode

from applications.browser import File

LARGE = bytes(range(256)) * 40_000


def use(browser, root):
    browser.get("/wiki")
    browser.again(browser.get("/chrome/common/css/trac.css"))
    browser.head("/chrome/common/trac_logo_mini.png")
    browser.get("/chrome/common/nothing.css", 404)
    browser.get("/admin", 404)
    if browser.behind == "http":
        # Only nginx asks who somebody is.
        browser.get("/login", 500)
        browser.get("/newticket", 403)
        browser.get("/report")
        return
    browser.get("/login", 401)
    for password, status in (("wrong", 401), ("open-sesame", 302)):
        authorization = "Basic " + b64encode(f"tester:{password}".encode()).decode()
        browser.get("/login", status, Authorization=authorization)
    browser.get("/admin/general/basics")

    edit = browser.get("/wiki/Gr%C3%BC%C3%9Fe?action=edit")
    browser.submit(edit, "text", {"text": "= Gr\u00fc\u00dfe =\n''to'' all", "save": "Save"}, 303)
    page = browser.get("/wiki/Gr%C3%BC%C3%9Fe")
    assert "<em>to</em>" in page.text
    browser.get("/wiki/Gr%C3%BC%C3%9Fe?format=txt")
    ticket = browser.get("/newticket")
    fields = {"field_summary": "It <breaks>", "field_description": "Always.", "submit": "Create ticket"}
    browser.submit(ticket, "field_summary", fields, 303)
    browser.get("/ticket/1")
    attach = browser.get("/attachment/ticket/1/?action=new")
    browser.submit(attach, "description", {"description": "All bytes", "attachment": File("large.bin", LARGE)}, 303)
    assert browser.get("/raw-attachment/ticket/1/large.bin").answer.body == LARGE
    browser.head("/raw-attachment/ticket/1/large.bin")
    browser.get("/report/1")
    browser.get("/query?status=!closed&format=csv")
    browser.get("/search?q=breaks&noquickjump=1&ticket=on&wiki=on")
    browser.get("/timeline?format=rss")
    browser.get("/ticket/99", 404)
    browser.get("/nowhere", 404)
    browser.submit(page, "__FORM_TOKEN", {}, 303, target="/logout")
    browser.get("/admin", 404)
