"""What mkdocs is to do with pages that are written for a repository's own pages, which read CommonMark.

Links that lead out of docs/ get pages of the site: `../deploy/nginx/proxy.conf` becomes `source/deploy/nginx/proxy.conf.html`.
Lists are indented by four, as Python-Markdown wants them.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from markdown_it import MarkdownIt
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent.parent
LINK = re.compile(r"\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
# Directories whose files are shown; of others there is only a list.
SHOWN = ("deploy/", "examples/")
LANGUAGES = {".conf": "nginx", ".service": "ini", ".socket": "ini", ".yml": "yaml", ".tpl": "yaml", "": "sh"}
MARKDOWN = MarkdownIt("commonmark").enable("table")


def on_files(files, config):
    """Adds a page for everything outside of docs/ that a page of the site leads to."""
    waiting = []
    for file in files.documentation_pages():
        waiting += outside(Path(file.abs_src_path).read_text(), "docs")
    waiting += ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
    made = set()
    while waiting:
        path = waiting.pop()
        if path in made:
            continue
        made.add(path)
        text, leads_to = page_of(path)
        waiting += leads_to
        files.append(File.generated(config, source_page(path), content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown, page, config, files):
    src = page.file.src_uri
    if not src.startswith("source/"):
        markdown = LINK.sub(lambda found: relinked(found, "docs", src), markdown)
    return "\n".join(indented(markdown.splitlines()))


def outside(text: str, directory: str) -> list[str]:
    """The files and directories outside of docs/ that a page in `directory` of the repository leads to."""
    targets = (posixpath.normpath(posixpath.join(directory, found["path"])) for found in LINK.finditer(text))
    return [path for path in targets if not of_the_site(path) and not path.startswith("..") and (ROOT / path).exists()]


def of_the_site(path: str) -> bool:
    """Whether a path of the repository is a page of the site, or a file that is copied to it."""
    return path == "docs" or (path.startswith("docs/") and not path.startswith("docs/site/"))


def source_page(path: str) -> str:
    """The page of the site for a path of the repository."""
    if path.endswith((".md", ".json")):
        return f"source/{path}"
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.md"


def relinked(found: re.Match[str], directory: str, src: str) -> str:
    """A link as it is to be in the page `src` of the site, when it was written in `directory` of the repository."""
    path = posixpath.normpath(posixpath.join(directory, found["path"]))
    if of_the_site(path):
        target = path.removeprefix("docs/")
    elif (ROOT / path).exists() and path != "." and not path.startswith(".."):
        target = source_page(path)
    else:
        return found[0]
    return f"]({posixpath.relpath(target, posixpath.dirname(src) or '.')}{found['anchor'] or ''})"


def page_of(path: str) -> tuple[str, list[str]]:
    """The text of the page for a path of the repository, and the paths that it leads to in turn."""
    full, src = ROOT / path, source_page(path)
    if path.endswith(".json"):
        return full.read_text(), []
    if path.endswith(".md"):
        text = full.read_text()
        directory = posixpath.dirname(path)
        return LINK.sub(lambda found: relinked(found, directory, src), text), outside(text, directory)
    quiet = "---\nsearch:\n  exclude: true\n---\n"
    if full.is_dir():
        entries = sorted(each for each in full.iterdir() if not each.name.startswith((".", "__pycache__")) and each.stat().st_size)
        names = [f"{path}/{each.name}" for each in entries]
        if not f"{path}/".startswith(SHOWN):
            return f"{quiet}# {path}\n\n" + "".join(f"- `{posixpath.basename(each)}`\n" for each in names), []
        links = [f"- [{posixpath.basename(each)}]({posixpath.relpath(source_page(each), posixpath.dirname(src))})\n" for each in names]
        return f"{quiet}# {path}\n\n" + "".join(links), names
    language = LANGUAGES.get(full.suffix, full.suffix[1:])
    return f"{quiet}# {path}\n\n````{language}\n{full.read_text().rstrip()}\n````\n", []


def indented(lines: list[str]) -> list[str]:
    """The lines with every list indented by four, with an empty line before it, and before its items where one has blocks."""
    out, done, apart = [], 0, False
    for token in MARKDOWN.parse("\n".join(lines)):
        if token.type in ("bullet_list_open", "ordered_list_open") and token.level == 0:
            start, end = token.map
            apart = any(not line.strip() for line in lines[start : end - 1])
            out += lines[done:start]
            done = start
            if out and out[-1].strip():
                out.append("")
        elif token.type == "list_item_open" and token.level == 1:
            start, end = token.map
            out += lines[done:start]
            if apart and out and out[-1].strip():
                out.append("")
            marker = re.match(r" {0,3}(?:[-*+]|\d+[.)]) {0,4}", lines[start])[0]
            inner = [lines[start][len(marker):]] + [re.sub(rf"^ {{0,{len(marker)}}}", "", line) for line in lines[start + 1 : end]]
            first, *rest = indented(inner)
            out += [marker.lstrip() + first, *(f"    {line}" if line.strip() else "" for line in rest)]
            done = end
    return out + lines[done:]
