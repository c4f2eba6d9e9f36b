"""An administrator's session: a wrong password, users, groups, uploads, a search, the history, and the way out."""

from __future__ import annotations

from applications.browser import File

LARGE = bytes(range(256)) * 40_000


def use(browser, root):
    page = browser.follow(browser.get("/admin/", 302))
    browser.submit(page, "username", {"username": "admin", "password": "wrong"}, 200)
    home = browser.follow(browser.submit(page, "username", {"username": "admin", "password": "correct-horse"}))
    assert "Site administration" in home.text
    browser.request("POST", "/admin/library/document/add/", {"Content-Type": "application/x-www-form-urlencoded"}, b"title=x")

    add = browser.get("/admin/library/document/add/")
    browser.submit(add, "title", {"title": "", "_save": "Save"}, 200)
    for name, content in (("small.txt", "Gr\u00fc\u00dfe\n".encode()), ("large.bin", LARGE)):
        listed = browser.submit(add, "title", {"title": f"About {name}", "file": File(name, content), "_save": "Save"})
        assert f"About {name}" in browser.follow(listed).text
    assert (root / "project/media/documents/large.bin").read_bytes() == LARGE
    assert "1 document" in browser.get("/admin/library/document/?q=small").text
    change = browser.get("/admin/library/document/1/change/")
    browser.follow(browser.submit(change, "title", {"title": "\u00c4nderung & <b>", "_save": "Save"}))
    browser.get("/admin/library/document/1/history/")
    assert browser.get("/documents/2/").answer.body == LARGE
    browser.head("/documents/2/")
    assert "\u00c4nderung & <b>" in browser.get("/").text

    user = {"username": "reader", "password1": "quite-long-9", "password2": "quite-long-9", "_save": "Save"}
    browser.follow(browser.submit(browser.get("/admin/auth/user/add/"), "username", user))
    browser.submit(browser.get("/admin/auth/group/add/"), "name", {"name": "Editors", "_save": "Save"})
    # What two runs answer alike to a condition is what has no token in it.
    browser.again(browser.get("/admin/jsi18n/"))
    confirm = browser.get("/admin/library/document/2/delete/")
    browser.follow(browser.submit(confirm, "post", {}))
    browser.get("/documents/2/", 404)
    browser.get("/nowhere/", 404)
    browser.get("/admin/library/document/99/change/", 302)
    browser.head("/admin/")
    browser.get("/admin", 301)
    browser.get("/", 400, Host="elsewhere.example")
    browser.request("DELETE", "/admin/library/document/")
    browser.submit(home, "csrfmiddlewaretoken", {}, 200)
    browser.get("/admin/", 302)
