"""An editor: a page is written, published and changed, an image and a document are uploaded, and a visitor reads it all."""

from __future__ import annotations

import struct
import zlib

from applications.browser import File


def png(side: int) -> bytes:
    """A grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x * y) % 256 for x in range(side)) for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def use(browser, root):
    browser.get("/")
    login = browser.follow(browser.get("/admin/", 302))
    browser.submit(login, "username", {"username": "admin", "password": "wrong"}, 200)
    browser.follow(browser.submit(login, "username", {"username": "admin", "password": "correct-horse"}))

    home = browser.get("/admin/pages/").find(r"/admin/pages/(\d+)/edit/")
    add = browser.get(f"/admin/pages/add/home/homepage/{home}/")
    browser.submit(add, "title", {"title": "", "slug": ""}, 200)
    page = {"title": "Gr\u00fc\u00dfe", "slug": "greetings", "action-publish": "action-publish"}
    browser.follow(browser.submit(add, "title", page))
    edit = browser.get("/admin/pages/4/edit/")
    browser.submit(edit, "title", {"title": "Gr\u00fc\u00dfe <2>", "action-publish": "action-publish"})
    assert "Gr\u00fc\u00dfe" in browser.get("/greetings/").text
    browser.get("/admin/pages/4/history/")

    images = browser.get("/admin/images/add/")
    token = images.find(r'name="csrfmiddlewaretoken" value="([^"]+)"')
    browser.headers["X-CSRFToken"] = token
    upload = {"title": "Picture", "files[]": File("picture.png", png(300), "image/png"), "collection": "1"}
    browser.upload("/admin/images/multiple/add/", upload, 200)
    assert browser.get("/media/original_images/picture.png").answer.body == png(300)
    browser.again(browser.get("/media/original_images/picture.png"))
    browser.head("/media/original_images/picture.png")
    browser.get("/admin/images/")
    content = bytes(range(256)) * 40_000
    browser.upload("/admin/documents/multiple/add/", {"title": "Large", "files[]": File("large.pdf", content), "collection": "1"}, 200)
    assert browser.get("/documents/1/large.pdf").answer.body == content
    browser.head("/documents/1/large.pdf")
    browser.headers.clear()

    browser.get("/admin/pages/search/?q=Gr%C3%BC")
    browser.get("/search/?query=nothing")
    browser.get("/admin/reports/site-history/")
    browser.get("/admin/users/")
    browser.get("/nowhere/", 404)
    browser.get("/media/nothing.png", 404)
    browser.get("/documents/9/nothing.pdf", 404)
    browser.submit(browser.get("/admin/pages/4/delete/"), "csrfmiddlewaretoken", {}, target="/admin/pages/4/delete/")
    browser.get("/greetings/", 404)
    browser.post("/admin/logout/", {"csrfmiddlewaretoken": token})
    browser.get("/admin/", 302)
