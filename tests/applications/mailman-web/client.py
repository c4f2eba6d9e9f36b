"""Mailman's core delivers messages to the archive, and a reader signs in, reads, searches and votes."""

from __future__ import annotations

from applications.browser import File

KEY = "SecretArchiverAPIKey"
MESSAGE = """\
From: Zoe <zoe@example.org>
To: list@example.org
Subject: {subject}
Message-ID: <{number}@example.org>
Date: Fri, 02 Jan 2026 03:04:05 +0000
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit
{more}
{text}
"""


def message(number: int, subject: str, text: str, more: str = "") -> File:
    content = MESSAGE.format(number=number, subject=subject, text=text, more=more)
    return File("message.txt", content.encode(), "message/rfc822")


def use(browser, root):
    archive = "/hyperkitty/api/mailman/archive"
    to = {"mlist": "list@example.org"}
    browser.upload(archive, {**to, "message": message(1, "No", "No")}, 401)
    browser.headers["Authorization"] = f"Token {KEY}"
    browser.upload(archive, {**to, "message": message(1, "Hello", "Gr\u00fc\u00dfe to all.")}, 200)
    browser.upload(archive, {**to, "message": message(2, "Re: Hello", "And to you.", "In-Reply-To: <1@example.org>\n")}, 200)
    browser.upload(archive, {**to, "message": message(3, "A large one", "A line of a large message.\n" * 40_000)}, 200)
    browser.headers.clear()
    browser.get("/archives/")
    browser.get("/archives/list/list@example.org/")
    month = browser.get("/archives/list/list@example.org/2026/1/")
    thread = browser.get(month.find(r'href="(/archives/list/list@example.org/thread/[^/"]+/)'))
    browser.get("/archives/list/list@example.org/export/list.mbox.gz?start=2026-01-01&end=2026-02-01")
    browser.exchanges.pop()
    browser.get("/archives/api/lists/?format=json")
    browser.get("/archives/api/list/list@example.org/threads/?format=json")

    browser.get("/admin/", 302)
    login = browser.get("/accounts/login/")
    browser.submit(login, "login", {"login": "admin", "password": "wrong"}, 200)
    browser.submit(login, "login", {"login": "admin", "password": "correct-horse"})
    browser.get(thread.target)
    browser.get("/archives/profile/")
    browser.get("/admin/")
    browser.get("/admin/hyperkitty/email/?q=Hello")
    profile = browser.get("/user-profile/")
    browser.submit(profile, "first_name", {"first_name": "Zo\u00eb", "last_name": "A"})
    browser.get("/archives/search?q=Hello")
    # What Postorius says while the core cannot be reached.
    browser.get("/mailman3/lists/", 503)
    browser.get("/nowhere", 404)
    browser.get("/archives/list/none@example.org/", 404)
    browser.head("/archives/")
    browser.get("/accounts/login/", 302)
    browser.submit(browser.get("/accounts/logout/"), "csrfmiddlewaretoken", {}, target="/accounts/logout/")
    browser.get("/user-profile/", 302)
