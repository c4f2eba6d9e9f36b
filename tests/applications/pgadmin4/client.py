"""An administrator signs in, makes a group and a server, changes preferences, uploads a script, and signs out."""

from __future__ import annotations

import json

from applications.browser import File

TOKEN = r"\['csrf_token'\] = '([^']+)'"
GROUP, SERVERS = "/browser/server_group/obj/", "/browser/server/obj/1/"
SERVER = {
    "name": "Datenbank", "host": "127.0.0.1", "port": 5432, "db": "postgres", "username": "postgres", "connect_now": False,
    "connection_params": [],
}


def call(browser, method: str, target: str, expect: int, body: object = None):
    """A request as its scripts send it."""
    content = json.dumps(body).encode() if body is not None else b""
    return browser.expect(expect, browser.request(method, target, {"Content-Type": "application/json"}, content))


def use(browser, root):
    login = browser.follow(browser.get("/", 302))
    browser.get("/misc/ping")
    token = login.find(r'"csrfToken": "([^"]+)"')
    for password in ("wrong", "open-sesame"):
        sent = {"csrf_token": token, "email": "admin@example.org", "password": password, "internal_button": "Login"}
        answer = browser.post("/authenticate/login", sent)
    browser.follow(answer)
    call(browser, "POST", GROUP, 401, {"name": "No token"})
    browser.headers["X-pgA-CSRFToken"] = browser.get("/browser/js/utils.js").find(TOKEN)
    call(browser, "POST", GROUP, 200, {"name": "Gr\u00fcppe"})
    call(browser, "PUT", f"{GROUP}2", 200, {"name": "Gruppe <2>"})
    call(browser, "GET", "/browser/server_group/nodes/", 200)
    call(browser, "POST", SERVERS, 200, SERVER)
    call(browser, "GET", f"{SERVERS}1", 200)
    call(browser, "DELETE", f"{SERVERS}1", 200)
    call(browser, "GET", f"{SERVERS}9", 410)
    call(browser, "GET", "/preferences/", 200)
    call(browser, "GET", "/browser/nodes/", 200)
    asked = {"dialog_type": "storage_dialog", "supported_types": ["*", "sql"], "dialog_title": "Open"}
    number = json.loads(call(browser, "POST", "/file_manager/init", 200, asked).text)["data"]["transId"]
    content = b"-- \xc3\xa4\n" + b"SELECT 1;\n" * 1_000_000
    upload = {"newfile": File("large.sql", content), "mode": "add", "currentpath": "/", "storage_folder": ""}
    browser.upload(f"/file_manager/filemanager/{number}/", upload, 200)
    (kept,) = (root / "data/storage").rglob("large.sql")
    assert kept.read_bytes() == content
    browser.get("/nowhere", 404)
    browser.get("/logout", 302)
    call(browser, "GET", "/browser/server_group/nodes/", 401)
