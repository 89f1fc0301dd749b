"""Renders tables of names for who cannot import them: `render_wire.py TABLE.py...` prints wire.h, with `FILE
SHARE` FILE.

In FILE, @ROW@ becomes what a Lua pattern matches that row's value by, @=ROW@ the value itself, and
/opt/pcocc/share/pcocc where our own files are installed.
"""

import re
import runpy
import sys


def read_rows(*paths: str) -> dict[str, str | int]:
    """Return the rows of the tables by name."""
    every = [item for path in paths for item in runpy.run_path(path).items()]
    return {name: value for name, value in every if re.fullmatch(r"[A-Z][A-Z_]+", name)}


def render_header(rows: dict[str, str | int]) -> str:
    """Return wire.h."""
    lines = [
        f"#define {name} {value}" if isinstance(value, int) else f'#define {name} "{value}"'
        for name, value in rows.items()
    ]
    return "\n".join(["/* rendered from pcocc_runtime/documents/wire*.py */", *lines, ""])


def render_filter(rows: dict[str, str | int], text: str, share: str) -> str:
    """Return a Lua file with the rows it names filled in; KeyError when there is no such row."""
    text = re.sub(r"@=([A-Z][A-Z_]+)@", lambda match: str(rows[match[1]]), text)
    filled = re.sub(r"@([A-Z][A-Z_]+)@", lambda match: re.sub(r"(\W)", r"%\1", str(rows[match[1]])), text)
    return filled.replace("/opt/pcocc/share/pcocc", share)


def main(*arguments: str) -> None:
    """Print one of the two."""
    rows = read_rows(*(path for path in arguments if path.endswith(".py")))
    rest = [word for word in arguments if not word.endswith(".py")]
    if not rest:
        sys.stdout.write(render_header(rows))
        return
    file, share = rest
    with open(file) as stream:
        sys.stdout.write(render_filter(rows, stream.read(), share))


if __name__ == "__main__":
    main(*sys.argv[1:])
