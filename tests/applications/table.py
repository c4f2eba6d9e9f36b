"""The applications: what is started, how it is reached, and what two runs of it may differ in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATE = r"\d{4}-\d\d-\d\d"


@dataclass(frozen=True)
class Application:
    """One application. Its directory is named as it is."""

    name: str
    # The package whose version is shown.
    package: str
    # What its configuration listens on: "http" (HTTP), or "socket" (behind nginx).
    listens: str
    # Runs in CI, by what it listens on; all else wants `--all-applications`.
    light: bool = False
    # What no two runs answer alike, as regular expressions, beside those of `answers.py`. A group is what is kept.
    varying: tuple[str, ...] = ()
    # Whose body is known to differ between the servers, as regular expressions of "METHOD path status", with the reason.
    differing: dict[str, str] = field(default_factory=dict)
    # What the server serves itself (`static-map`), as a regular expression of paths.
    files: str = ""
    # Programs of the system that the client or the application runs.
    programs: tuple[str, ...] = ()
    # It has rules (`route`), which uWSGI knows only when it was built with PCRE.
    routes: bool = False
    # Set for the server, beside what every one is given.
    env: dict[str, str] = field(default_factory=dict)

    # Options that uWSGI gets beside those of the file, with which it answers at all.
    uwsgi_options: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return HERE / self.name


TABLE = (
    Application(
        "django-admin", "Django", "socket", light=True, varying=(r"(<strong>(?:salt|hash)</strong>: <bdi>)\w+\*+",),
    ),
    Application("radicale", "radicale", "http", light=True),
    Application(
        # Else a worker of uWSGI may be a copy in which a lock is held for ever: docs/applications.md.
        "isso", "isso", "http", light=True, uwsgi_options=("--lazy-apps",),
        varying=(r"(<time>)[\d: /-]+", r'("(?:created|modified)": )[\d.]+', r"(_com\(1, '|send_edit\(1, ')[\w.-]+"),
    ),
    Application("xandikos", "xandikos", "socket", light=True),
    Application("xandikos-standalone", "xandikos", "http", light=True, routes=True),
    Application("klaus", "klaus", "http", light=True, programs=("git",)),
    # It names the entries of its history by the first of a set of classes, whose order is that of their addresses.
    Application(
        "wagtail", "wagtail", "http", files="/media/",
        varying=(r"(\d+ )(?:model|page)(?= log entries)", r"(w-help-text\">)\d\d:\d\d(?= by)"),
    ),
    Application(
        "mailman-web", "mailman-web", "socket", varying=(r"(</i>)\d+ (?:discussion|participant|comment)s?", r"(?m)^[ \t]+$"),
        differing={"(GET|HEAD) /archives/ 200": "its qcluster finds out meanwhile whether a list is inactive"},
    ),
    Application("graphite-web", "graphite-web", "socket"),
    Application("django-oscar", "django-oscar", "http", routes=True, files="/media/"),
    Application(
        "pgadmin4", "pgadmin4", "socket",
        varying=(
            r"""('nonce-|nonce=")[\w-]+""", r"""(csrf_?[tT]oken['"]?\]?(?:: | = )['"])[\w.-]+""", r'("transId":")\d+', r"(filemanager/)\d+",
        ),
    ),
    Application("supysonic", "supysonic", "http"),
    Application("moin", "moin", "socket", varying=(r"(Page: )[\d.]+ ms", r"(\?time=)\d+", r"\b[0-9a-f]{32}\b")),
    Application(
        "trac", "trac", "socket", files="/chrome/common/",
        varying=(
            r"(>)\d+ (?:second|minute|hour)s? ago", r"(<guid [^>]*>[^<]*/)\d+", r'(name="(?:start|view)_time"\s+value=")\d+',
            r'(name="__FORM_TOKEN" value=")\w+',
        ),
        differing={r"GET \S+ (?:40[134]|500)": "uWSGI loses the body that is written after start_response with exc_info"},
    ),
)
