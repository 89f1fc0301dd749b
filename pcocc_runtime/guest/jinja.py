"""What a Jinja template may become, as far as the submitting host can tell without rendering it."""

from __future__ import annotations

import re
from typing import NamedTuple

from pcocc_runtime.guest.user_data_fault import Fault

STAND_IN = "pcocc_jinja_value"  # put in place of an expression
# cloudinit/templater.py, which looks at the very first line only
_HEAD = re.compile(r"##\s*template:(.*)", re.IGNORECASE)
_MARK = re.compile(r"\{\{.*?\}\}|\{#.*?#\}|\{%[-+]?\s*raw\s*[-+]?%\}(?P<raw>.*?)\{%[-+]?\s*endraw\s*[-+]?%\}"
                   r"|\{%[-+]?\s*(?P<word>\w*).*?%\}", re.DOTALL)  # fmt: skip
_BLOCKS = frozenset(["if", "for", "block", "macro", "filter", "call", "with", "autoescape"])
_OTHER_FILES = frozenset(["include", "import", "from", "extends"])  # of files that cloud-init does not have
_BARE = re.compile(r"\{%[-+]?\s*(if|elif|for|set)\s*[-+]?%\}")


class Rendered(NamedTuple):
    """Two texts that a template may come to: where every condition holds, and where none does.

    `exact` says that the template has no tags, so that nothing is left open. Lines keep their numbers.
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


def find_syntax_fault(text: str) -> Fault | None:
    """Return why jinja would not read a template, as far as its tags show."""
    opened = list[str]()
    hint = "look at its tags, as Jinja's documentation of templates has them"
    for found in _MARK.finditer(text):
        word, line = found["word"] or "", text.count("\n", 0, found.start()) + 1
        if word in _OTHER_FILES:
            return Fault(f"takes another template in line {line}, but cloud-init has no other: {found[0][:40]}", hint)
        ends = word.removeprefix("end") if word.startswith("end") and word[3:] in _BLOCKS else ""
        wrong = (
            _BARE.match(found[0])
            or (ends and opened[-1:] != [ends])
            or (word == "elif" and opened[-1:] != ["if"])
            or (word == "else" and opened[-1:] not in (["if"], ["for"]))
        )
        if wrong:
            tag = " ".join(found[0].split())[:40]
            return Fault(f"has the tag {tag} in line {line}, where jinja cannot read it, and is left out", hint)
        if ends:
            opened.pop()
        elif word in _BLOCKS:
            opened.append(word)
    if opened:
        return Fault(f"has a {{% {opened[-1]} %}} without {{% end{opened[-1]} %}}, and is left out", hint)
    return None


def render_jinja(text: str) -> Rendered:
    """Return what a template may come to, without its first line."""
    body = "\n" + text.partition("\n")[2]
    likely, other = list[str](), list[str]()
    # for each block that is open here, the branch that we are in: "if", "elif" or "else"
    choices, at = list[str](), 0

    def add(piece: str) -> None:
        blank = "\n" * piece.count("\n")
        likely.append(blank if set(choices) - {"if"} else piece)
        other.append(blank if set(choices) - {"else"} else piece)

    for found in _MARK.finditer(body):
        add(body[at : found.start()])
        at, word = found.end(), found["word"]
        if word in _BLOCKS:
            choices.append("if")
        elif word in ("else", "elif") and choices:
            choices[-1] = word
        elif word and word.startswith("end") and word[3:] in _BLOCKS and choices:
            choices.pop()
        if found["raw"] is not None:
            add(found["raw"])
        else:
            add((STAND_IN if found[0].startswith("{{") else "") + "\n" * found[0].count("\n"))
    add(body[at:])
    return Rendered("".join(likely), "".join(other), not at)
