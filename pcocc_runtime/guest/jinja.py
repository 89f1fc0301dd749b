"""What a Jinja template may become, as far as the submitting host can tell without rendering it."""

from __future__ import annotations

import re
from typing import NamedTuple

from pcocc_runtime.guest.user_data_fault import Fault

STAND_IN = "pcocc_jinja_value"  # put in place of an expression
# cloudinit/templater.py, which looks at the very first line only
_HEAD = re.compile(r"##\s*template:(.*)", re.IGNORECASE)
_MARK = re.compile(r"\{\{(?P<value>.*?)\}\}|\{#.*?#\}|\{%[-+]?\s*raw\s*[-+]?%\}(?P<raw>.*?)\{%[-+]?\s*endraw\s*[-+]?%\}"
                   r"|\{%[-+]?\s*(?P<word>\w*)(?P<rest>.*?)%\}", re.DOTALL)  # fmt: skip
_BLOCKS = frozenset(["if", "for", "block", "macro", "filter", "call", "with", "autoescape", "set"])
_ALWAYS = frozenset(["block", "autoescape", "with"])  # what is in these is rendered as if it stood alone
_TRUE = re.compile(r"\s*(?:[Tt]rue|[1-9][0-9]*|not\s+(?:[Ff]alse|0)|'[^'\\]+'|\"[^\"\\]+\")\s*[-+]?\s*")  # a condition
_HIDDEN = frozenset(["macro", "set"])  # what is in these shows elsewhere, if at all
_OTHER_FILES = frozenset(["include", "import", "from", "extends"])  # of files that cloud-init does not have
# beside blocks, their ends and raw: cloud-init has jinja's extension "do", and no other
_SINGLE = frozenset(["else", "elif", "do", "set", "raw"])
_BARE = re.compile(r"\{%[-+]?\s*(if|elif|for|set)\s*[-+]?%\}")
_LITERAL = re.compile(r"""[-+]?\s*(?:'([^'\\]*)'|"([^"\\]*)"|([0-9]+))\s*[-+]?""")
_NAME = re.compile(r"[-+]?\s*([A-Za-z_]\w*)\s*[-+]?")
_FOR = re.compile(r"\s*[A-Za-z_(][\w\s,()]*\sin[\s(\[{'\"]")
# a loop that is gone through at least once, whatever the guest is: over a list that has an item, without a condition
_SURE_FOR = re.compile(r".*\sin\s*(?:\[(?!\s*\]).*\]|\((?!\s*\)).*\))\s*[-+]?\s*", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_SET = re.compile(r"\s*([A-Za-z_]\w*)\s*=(?!=)(.*)", re.DOTALL)


class Rendered(NamedTuple):
    """Two texts that a template may come to: where every condition holds, and where none does.

    `exact` says that the template has nothing but text, comments, and words that it gives itself, so that nothing
    is left open. Lines keep their numbers.
    """

    likely: str
    other: str
    exact: bool


def find_head_fault(text: str) -> Fault | None:
    """Return why cloud-init would not render what it takes for a template: its handler wants an exact first line."""
    found = _HEAD.match(text.split("\n", 1)[0])
    if found and found[1].strip().lower() == "jinja":
        return None
    message = (
        "has more than '## template: jinja' in its first line"
        if found
        else "has lines before '## template: jinja'"
    )
    return Fault(
        f"{message}, and cloud-init would not render it", "make '## template: jinja' all of its first line"
    )


def _is_balanced(expression: str) -> bool:
    """Tell whether each bracket of an expression has its other one."""
    opened = list[str]()
    for char in re.sub(r"[^][(){}]", "", _QUOTED.sub("", expression)):
        if char in "([{":
            opened.append(char)
        elif not opened or opened.pop() + char not in ("()", "[]", "{}"):
            return False
    return not opened


def find_syntax_fault(text: str) -> Fault | None:
    """Return why jinja would not read a template, as far as its tags show."""
    opened = list[str]()
    hint = "look at its tags, as Jinja's documentation of templates has them"
    for found in _MARK.finditer(text):
        word, line = found["word"] or "", text.count("\n", 0, found.start()) + 1
        is_block = word in _BLOCKS and not (word == "set" and "=" in found["rest"])
        if word in _OTHER_FILES:
            return Fault(f"takes another template in line {line}, but cloud-init has no other: {found[0][:40]}", hint)
        ends = word.removeprefix("end") if word.startswith("end") and word[3:] in _BLOCKS else ""
        wrong = (
            _BARE.match(found[0])
            or (word == "for" and not _FOR.match(found["rest"]))
            or not _is_balanced(found["value"] or found["rest"] or "")
            or (found["word"] is not None and not (ends or is_block or word in _SINGLE))
            or (ends and opened[-1:] != [ends])
            or (word == "elif" and opened[-1:] != ["if"])
            or (word == "else" and opened[-1:] not in (["if"], ["for"]))
        )
        if wrong:
            tag = " ".join(found[0].split())[:40]
            return Fault(f"has the tag {tag} in line {line}, where jinja cannot read it, and is left out", hint)
        if ends:
            opened.pop()
        elif is_block:
            opened.append(word)
    if opened:
        return Fault(f"has a {{% {opened[-1]} %}} without {{% end{opened[-1]} %}}, and is left out", hint)
    return None


class _Output:
    """A text that is being rendered; removed newlines are put back after its next one, where they do no harm."""

    def __init__(self) -> None:
        self.pieces = list[str]()
        self._owed, self._last = 0, "\n"

    def add(self, piece: str, after_block: bool) -> None:
        """Add a piece; jinja drops the newline right after a block, which matters only in the middle of a line."""
        if after_block and piece.startswith("\n") and self._last != "\n":
            piece = piece[1:]
            self._owed += 1
        if self._owed and "\n" in piece:
            piece = piece.replace("\n", "\n" * (1 + self._owed), 1)
            self._owed = 0
        if piece:
            self.pieces.append(piece)
            self._last = piece[-1]

    def skip(self, piece: str) -> None:
        """Leave a piece out."""
        self._owed += piece.count("\n")

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class _Rendering:
    """The state of a template that is read tag by tag."""

    def __init__(self) -> None:
        self.likely, self.other, self.exact = _Output(), _Output(), True
        # each block that is open here, and the branch that we are in: "if", "elif" or "else", "always" or "hidden"
        self._open = list[tuple[str, str]]()
        self._values: dict[str, str] = {}  # of names that have been set to a literal

    def add(self, piece: str, after_block: bool = False) -> None:
        """Add a text to what it belongs to here."""
        branches = {branch for _word, branch in self._open} - {"always"}
        for output, branch in ((self.likely, "if"), (self.other, "else")):
            if branches - {branch}:
                output.skip(piece)
            else:
                output.add(piece, after_block)

    def skip(self, piece: str) -> None:
        """Leave a text out everywhere."""
        self.likely.skip(piece)
        self.other.skip(piece)

    def take_value(self, expression: str) -> None:
        """Render an expression: a literal, or a name that is one, is known."""
        found = _LITERAL.fullmatch(expression)
        name = _NAME.fullmatch(expression)
        value = next(group for group in found.groups() if group is not None) if found else None
        if name and all(word in ("if", "block", "autoescape") for word, _branch in self._open):
            value = self._values.get(name[1])
        self.exact &= value is not None
        self.add(STAND_IN if value is None else value)

    def take_tag(self, word: str, rest: str) -> None:
        """Take a tag: the beginning, another branch or the end of a block, or a name that is set."""
        assigned = _SET.fullmatch(rest) if word == "set" else None
        if assigned:
            literal = _LITERAL.fullmatch(assigned[2])
            if literal and not self._open:
                self._values[assigned[1]] = next(group for group in literal.groups() if group is not None)
            else:
                self._values.pop(assigned[1], None)
            return
        self.exact = False
        if word in _BLOCKS:
            self._values.pop(rest.strip(" \t\n-+"), None)
            sure = {"for": _SURE_FOR, "if": _TRUE}.get(word)
            always = word in _ALWAYS or (sure and sure.fullmatch(rest))
            branch = "always" if always else "hidden" if word in _HIDDEN else "if"
            self._open.append((word, branch))
        elif word in ("else", "elif") and self._open:
            opened, branch = self._open[-1]
            self._open[-1] = (opened, "hidden" if branch == "always" else word)
        elif word.startswith("end") and word[3:] in _BLOCKS and self._open:
            self._open.pop()


def render_jinja(text: str) -> Rendered:
    """Return what a template may come to, without its first line."""
    body = "\n" + text.partition("\n")[2]
    template, at, before = _Rendering(), 0, ""
    for found in _MARK.finditer(body):
        tag = found[0]
        _add_text(template, body[at : found.start()], before, tag[2] == "-")
        at, before = found.end(), tag
        if found["raw"] is not None:
            template.add(found["raw"])
        elif found["value"] is not None:
            template.take_value(found["value"])
        elif found["word"] is not None:
            template.take_tag(found["word"], found["rest"])
        template.skip("\n" * (tag.count("\n") - (found["raw"] or "").count("\n")))
    _add_text(template, body[at:], before, False)
    return Rendered(template.likely.text, template.other.text, template.exact)


def _add_text(template: _Rendering, piece: str, before: str, strips: bool) -> None:
    """Add the text between two tags, of which the one before it and the one behind it may strip its white space."""
    start = len(piece) - len(piece.lstrip()) if before.endswith(("-%}", "-}}", "-#}")) else 0
    end = max(start, len(piece.rstrip())) if strips else len(piece)
    template.skip(piece[:start])
    template.add(piece[start:end], before.endswith(("%}", "#}")) and not before.endswith("+%}"))
    template.skip(piece[end:])
