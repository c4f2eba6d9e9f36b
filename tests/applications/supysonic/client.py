"""A player by the Subsonic API, and an administrator in the browser."""

from __future__ import annotations

import json


def use(browser, root):
    tone = (root / "music/Band/Album/01 Tone.wav").read_bytes()
    browser.get("/", 302)
    login = browser.get("/user/login")
    browser.submit(login, "user", {"user": "admin", "password": "wrong"}, 200)
    browser.follow(browser.submit(login, "user", {"user": "admin", "password": "open-sesame"}))
    browser.get("/user")
    add = browser.get("/user/add")
    browser.submit(add, "user", {"user": "reader", "passwd": "quite-long-9", "passwd_confirm": "quite-long-9", "mail": ""})
    browser.get("/user/me")
    browser.get("/folder")
    browser.again(browser.get("/static/css/supysonic.css"))
    browser.get("/playlist")

    def call(method: str, expect: int = 200, **fields: str):
        given = {"u": "admin", "p": "open-sesame", "c": "client", "v": "1.12.0", "f": "json", **fields}
        return browser.post(f"/rest/{method}.view", given, expect)

    call("ping")
    call("ping", p="wrong")
    call("getLicense")
    call("getMusicFolders")
    found = json.loads(call("search2", query="Tone").text)["subsonic-response"]
    song = found["searchResult2"]["song"][0]["id"]
    call("getIndexes", f="xml")
    call("getAlbumList2", type="newest")
    call("star", id=song)
    call("getStarred")
    call("createPlaylist", name="Gr\u00fc\u00dfe", songId=song)
    query = f"/rest/%s.view?u=admin&p=open-sesame&c=client&v=1.12.0&id={song}"
    assert browser.get(query % "download").answer.body == tone
    assert browser.get(query % "stream", 206, Range="bytes=100-199").answer.body == tone[100:200]
    browser.get(query % "stream", 416, Range="bytes=99999999-")
    browser.head(query % "stream")
    call("getCoverArt", id="00000000-0000-0000-0000-000000000000")
    call("nothing", 404)
    browser.get("/nowhere", 404)
    browser.follow(browser.get("/user/logout", 302))
