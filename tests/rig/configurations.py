"""Makes up configuration files, each from a number: the same number makes the same files."""

from __future__ import annotations

import random
from pathlib import Path

# What a file may refer to in its environment. A value that begins with a reference is left out: uWSGI goes on behind the
# first character of what it has put in.
ENVIRONMENT = {"ONE": "1", "TWO": "two words", "EMPTY": "", "PATHS": "/a:/b", "NUMBER_7": "7", "SIGNS": "a=b;c#d"}
WORDS = ["x", "42", "0", "-3", "/srv/app", "a b", "a=b", "k: v", '"quoted"', "'single'", "true", "é", "10M", "x;y", "a,b,c", "()", ")("]
COMMENTS = ["", "", "", " ; why", " # why", "\t;why", "   "]
MAGIC = ["%n", "%N", "%s", "%S", "%d", "%D", "%p", "%P", "%e", "%E", "%c", "%C", "%x", "%X", "%o", "%O", "%v", "%h", "%u", "%U", "%g", "%G",
         "%k", "%i", "%j", "%0", "%1", "%2", "%3", "%%"]
OPERATORS = ["+", "-", "*", "/", ""]
STEMS = ["site", "my.site", "site-1", "UPPER", "a_b"]


class Maker:
    """The files of one number, below a directory."""

    def __init__(self, number: int, directory: Path):
        self.random = random.Random(number)
        self.directory = directory
        self.keys = [f"key-{index}" for index in range(self.random.randint(3, 8))]
        self.included: list[str] = []

    def write(self) -> Path:
        """Writes all files and returns the one to start from."""
        # A carriage return before the line end at the end of a file stays with uWSGI, and goes here.
        for name, text in {"one.txt": "first\n", "two.txt": "a\nb \n", "none.txt": "", "lines.txt": "l1\nl 2\n\nl3\n"}.items():
            (self.directory / name).write_text(text, newline="")
        (self.directory / "parts").mkdir(exist_ok=True)
        for name in ("b.conf", "a.conf"):
            (self.directory / "parts" / name).write_text("")
        if self.chance(0.2):
            file = self.directory / f"{self.pick(STEMS)}.yaml"
            file.write_text("uwsgi:\n" + "".join(f"  {key}: {value}\n" for key, value in self.plain_pairs()))
            return file
        for name in ("other.ini", "third.ini"):
            (self.directory / name).write_text(self.sections(depth=1))
        file = self.directory / f"{self.pick(STEMS)}.ini"
        file.write_text(self.sections(depth=0), newline="")
        return file

    def chance(self, part: float) -> bool:
        return self.random.random() < part

    def pick(self, choices):
        return self.random.choice(choices)

    def plain_pairs(self):
        # uWSGI of the package index takes YAML line by line, quotes, brackets and comments included: where the strict reader
        # here reads something else, YAML means that.
        words = ["x", "42", "/srv/app", "a b", "a=b"]
        for key in self.keys:
            yield key, self.pick(words) + "".join(self.pick([self.pick(words), self.reference(), self.variable(), "%n", "%d"]) for _ in range(2))

    def sections(self, depth: int) -> str:
        parts = []
        for name in self.random.sample(["uwsgi", "more", "rest"], 3):
            lines = self.lines(depth, may_include=name == "uwsgi", may_block=True)
            parts.append(f"[{name}]\n" + "".join(lines))
        if self.chance(0.3):
            parts.append("[uwsgi]\n" + "".join(self.lines(depth, may_include=False, may_block=False)))
        text = "".join(parts)
        return text.replace("\n", "\r\n") if self.chance(0.1) else text

    def lines(self, depth: int, may_include: bool, may_block: bool) -> list[str]:
        found = []
        for _ in range(self.random.randint(2, 8)):
            kind = self.random.random()
            if kind < 0.08:
                found.append(self.pick(["\n", "; comment = 1\n", "# comment\n", "   \n", "  ;x\n"]))
            elif kind < 0.2 and may_include and depth == 0:
                found.append(self.pick(["ini = %dother.ini\n", "ini = :more\n", "include = %dthird.ini\n", "ini = %dother.ini:rest\n", "ini = %p:rest\n"]))
            elif kind < 0.45 and may_block:
                found += self.block()
            elif kind < 0.5:
                # uWSGI leaves what set-placeholder sets as it is written, references too, so that nobody writes any there.
                found.append(f"{self.pick(['set', 'set-placeholder', 'set-ph'])} = {self.pick(self.keys)}={self.pick(WORDS)}\n")
            else:
                found.append(self.setting())
        return found

    def setting(self) -> str:
        blank = self.pick(["", " ", "  ", "\t"])
        key = self.pick(self.keys)
        if self.chance(0.05):
            return f"{blank}{key}\n"
        return f"{blank}{key}{blank}={blank}{self.value()}{self.pick(COMMENTS)}\n"

    def value(self) -> str:
        kinds = [lambda: self.pick(WORDS), self.reference, self.variable, self.sum, lambda: self.pick(MAGIC), self.file]
        # The first is a word: uWSGI does not look again at the first character of what it has put together.
        return self.pick(WORDS) + "".join(self.pick(kinds)() for _ in range(self.random.randint(0, 3)))

    def reference(self) -> str:
        # One that is its own, directly or around a corner, has uWSGI put it in for ever; here it is an error. So a key refers
        # to what is set elsewhere only.
        return f"%({self.pick(['plain-a', 'plain-b', 'nothing'])})"

    def variable(self) -> str:
        return f"$({self.pick([*ENVIRONMENT, 'NOT_THERE'])})"

    def file(self) -> str:
        return f"@({self.directory}/{self.pick(['one.txt', 'two.txt', 'none.txt'])})"

    def sum(self) -> str:
        words = [self.pick(["plain-a", "plain-b", "number", "3", "12"])]
        for _ in range(self.random.randint(1, 3)):
            words += [self.pick(OPERATORS), self.pick(["number", "plain-b", "2", "5", "0"])]
        if self.chance(0.2):
            words.append(self.pick(["++", "--"]))
        return f"%({' '.join(word for word in words if word)})"

    def block(self) -> list[str]:
        over = self.pick(
            [
                ("for", "a b c"),
                ("for", "one"),
                ("for-times", "3"),
                ("for-readline", "%dlines.txt"),
                ("for-glob", "%dparts/*.conf"),
                ("for-glob", "%dnothing/*.conf"),
                ("if-env", "ONE"),
                ("if-env", "NOT_THERE"),
                ("if-env", "ONE=1"),
                ("if-env", "ONE=2"),
                ("if-not-env", "NOT_THERE"),
                ("if-not-env", "ONE=2"),
                ("if-file", "%done.txt"),
                ("if-not-file", "%done.txt"),
                ("if-dir", "%dparts"),
                ("if-not-dir", "%done.txt"),
                ("if-exists", "%dnothing"),
                ("if-not-exists", "%dnothing"),
                ("if-opt", self.pick(self.keys)),
                ("if-opt", f"{self.pick(self.keys)}=x"),
                ("if-not-opt", f"{self.pick(self.keys)}=x"),
                ("if-hostname", "no-such-host"),
                ("if-not-hostname", "no-such-host"),
                ("if-reload", "true"),
                ("if-not-reload", "true"),
            ]
        )
        option, argument = over
        kind = "for" if option.startswith("for") else "if"
        within = [f"{self.pick(self.keys)} = {self.pick(WORDS)}%(_){self.pick(WORDS)}\n" for _ in range(self.random.randint(1, 2))]
        lines = [f"{option} = {argument}\n", *within]
        # No `else`: uWSGI 2.0 has none, and 2.1 reads it as it is read here.
        return [*lines, f"end{self.pick(['', '-'])}{kind} =\n"]
