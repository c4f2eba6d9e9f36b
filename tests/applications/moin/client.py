"""Somebody signs in to a wiki, writes, uploads, searches, and goes back to an older version."""

from __future__ import annotations

from applications.browser import File

WIKI = "contenttype=text/x.moin.wiki;charset=utf-8&itemtype=default&template="


def use(browser, root):
    browser.get("/", 302)
    browser.get("/Home", 404)
    browser.get("/+modify/Page?" + WIKI, 403)
    login = browser.get("/+login")
    browser.submit(login, "login_username", {"login_username": "Tester", "login_password": "wrong"}, 200)
    signed = browser.submit(login, "login_username", {"login_username": "Tester", "login_password": "open-sesame-1"})
    browser.follow(signed, 302)
    for text in ("= Gr\u00fc\u00dfe =\n'''To''' all", "= Gr\u00fc\u00dfe =\nTo <nobody>"):
        edit = browser.get("/+modify/Gr%C3%BC%C3%9Fe?" + WIKI)
        browser.submit(edit, "content_form_data_text", {"content_form_data_text": text, "comment": "A change", "submit": "Save"})
    assert "&lt;nobody&gt;" in browser.get("/Gr%C3%BC%C3%9Fe").text
    browser.get("/+history/Gr%C3%BC%C3%9Fe")
    content = bytes(range(256)) * 40_000
    add = browser.get("/+modify/large.bin?contenttype=application/octet-stream&itemtype=default&template=")
    browser.submit(add, "content_form_comment" if "content_form_comment" in add.text else "comment", {"content_form_data_file": File("large.bin", content), "comment": "All bytes", "submit": "Save"})
    page = browser.get("/+get/large.bin")
    assert page.answer.body == content
    browser.head("/+get/large.bin")
    browser.again(browser.get("/static/css/common.css"))
    browser.get("/+search?q=nobody")
    browser.get("/+index/")
    browser.get("/+history")
    browser.get("/+usersettings")
    browser.get("/+serve/nothing/x.js", 404)
    browser.get("/nowhere", 404)
    browser.get("/robots.txt")
    browser.get("/+logout", 302)
    browser.get("/+modify/Gr%C3%BC%C3%9Fe?" + WIKI, 403)
