"""A reader of repositories, and a real git that clones and pushes."""

from __future__ import annotations

import os
import random
import subprocess

PERSON = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", "no_proxy": "*",
    "GIT_AUTHOR_NAME": "B", "GIT_AUTHOR_EMAIL": "b@example.org", "GIT_AUTHOR_DATE": "2026-02-03T04:05:06Z",
    "GIT_COMMITTER_NAME": "B", "GIT_COMMITTER_EMAIL": "b@example.org", "GIT_COMMITTER_DATE": "2026-02-03T04:05:06Z",
}


def git(browser, *arguments: object, expect: int = 0) -> str:
    """Runs git, and writes down how it ended."""
    command = ["git", *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **PERSON}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=120,
    )
    assert done.returncode == expect, f"{command} ended with {done.returncode}: {done.stdout}"
    browser.note(f"git {arguments[0]}", str(done.returncode))
    return done.stdout


def use(browser, root):
    browser.get("/")
    browser.get("/repo1/")
    commit = browser.get("/repo1/tree/main/").find(r"/repo1/commit/([0-9a-f]{40})")
    browser.get(f"/repo1/commit/{commit}/")
    browser.get("/repo1/blob/main/answer.py")
    browser.get("/repo1/raw/main/README.md")
    browser.head("/repo1/raw/main/README.md")
    browser.get("/repo1/blame/main/answer.py")
    browser.again(browser.get("/static/klaus.css"))
    browser.get("/repo1/blob/main/nothing.py", 404)
    browser.get("/nothing/", 404)
    browser.get("/repo1/info/refs?service=git-upload-pack")
    browser.get("/repo1/info/refs?service=git-receive-pack", 401)
    archive = browser.request("GET", "/repo1/tarball/main/")
    assert archive.answer.body[:2] == b"\x1f\x8b"
    # What gzip writes down is the time.
    browser.exchanges.pop()

    work = root.parent / "work"
    git(browser, "clone", "--quiet", f"http://{browser.address}/repo1", work)
    (work / "more.bin").write_bytes(random.Random(17).randbytes(3_000_000))
    git(browser, "-C", work, "add", ".")
    git(browser, "-C", work, "commit", "--quiet", "-m", "More")
    # One request with its length told, as git sends what is not larger than its buffer.
    git(browser, "-C", work, "config", "http.postBuffer", "10000000")
    git(browser, "-C", work, "push", "--quiet", f"http://tester:wrong@{browser.address}/repo1", "main", expect=128)
    git(browser, "-C", work, "push", "--quiet", f"http://tester:open-sesame@{browser.address}/repo1", "main")
    assert "More" in browser.get("/repo1/").text
    assert len(browser.get("/repo1/raw/main/more.bin").answer.body) == 3_000_000
    git(browser, "clone", "--quiet", "--depth", "1", f"http://{browser.address}/repo1", root.parent / "again")
    assert (root.parent / "again/more.bin").stat().st_size == 3_000_000
