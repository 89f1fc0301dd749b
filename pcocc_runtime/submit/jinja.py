"""What a jinja template may become, as far as the host of who submits can tell without rendering it."""

from __future__ import annotations

import re
from typing import NamedTuple

from pcocc_runtime.submit.fault import Fault

STAND_IN = "pcocc_jinja_value"  # stands where an expression does
# cloudinit/templater.py, which looks at the very first line only
_HEAD = re.compile(r"##\s*template:(.*)", re.IGNORECASE)
_MARK = re.compile(r"\{\{.*?\}\}|\{#.*?#\}|\{%[-+]?\s*raw\s*[-+]?%\}(?P<raw>.*?)\{%[-+]?\s*endraw\s*[-+]?%\}"
                   r"|\{%[-+]?\s*(?P<word>\w*).*?%\}", re.DOTALL)  # fmt: skip
_BLOCKS = frozenset(["if", "for", "block", "macro", "filter", "call", "with", "autoescape"])
_OTHER_FILES = frozenset(["include", "import", "from", "extends"])  # of which cloud-init has none
_BARE = re.compile(r"\{%[-+]?\s*(if|elif|for|set)\s*[-+]?%\}")


class Rendered(NamedTuple):
    """Two texts that a template may come to: where every condition holds, and where none does.

    `exact` tells that there is nothing to choose and nothing to fill in. Both have the lines of the template.
    """

    likely: str
    other: str
    exact: bool


def find_head_fault(text: str) -> Fault | None:
    """Return why cloud-init would not render what it takes for a template; it is the handler that insists."""
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
    """Return why jinja would not read a template, as far as its tags tell that."""
    opened = list[str]()
    hint = "look at its tags, as Jinja's documentation of templates has them"
    for found in _MARK.finditer(text):
        word, line = found["word"] or "", text.count("\n", 0, found.start()) + 1
        if word in _OTHER_FILES:
            return Fault(f"takes another template in line {line}, and cloud-init has none: {found[0][:40]}", hint)
        ends = word.removeprefix("end") if word.startswith("end") and word[3:] in _BLOCKS else ""
        wrong = (
            _BARE.match(found[0])
            or (ends and opened[-1:] != [ends])
            or (word == "elif" and opened[-1:] != ["if"])
            or (word == "else" and opened[-1:] not in (["if"], ["for"]))
        )
        if wrong:
            tag = " ".join(found[0].split())[:40]
            return Fault(f"has a tag in line {line} that jinja cannot read there, {tag}, and is left out", hint)
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
    # of each condition that we are under, which choice the text is: "if", "elif" or "else"
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
