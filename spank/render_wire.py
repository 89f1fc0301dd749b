"""Renders documents/wire.py for who cannot import it: `render_wire.py WIRE` prints wire.h, `render_wire.py WIRE FILE SHARE` FILE.

In FILE, @ROW@ becomes what a Lua pattern matches that row's value by, and /opt/pcocc/share/pcocc where our own files are installed.
"""

import re
import runpy
import sys


def read_rows(path: str) -> dict[str, str | int]:
    """Return the rows of the table by name."""
    return {name: value for name, value in runpy.run_path(path).items() if re.fullmatch(r"[A-Z][A-Z_]+", name)}


def render_header(rows: dict[str, str | int]) -> str:
    """Return wire.h."""
    lines = [f"#define {name} {value}" if isinstance(value, int) else f'#define {name} "{value}"' for name, value in rows.items()]
    return "\n".join(["/* rendered from pcocc_runtime/documents/wire.py */", *lines, ""])


def render_filter(rows: dict[str, str | int], text: str, share: str) -> str:
    """Return a Lua file with the rows it names filled in; KeyError when there is no such row."""
    filled = re.sub(r"@([A-Z][A-Z_]+)@", lambda match: re.sub(r"(\W)", r"%\1", str(rows[match[1]])), text)
    return filled.replace("/opt/pcocc/share/pcocc", share)


def main(wire: str, file: str = "", share: str = "") -> None:
    """Print one of the two."""
    rows = read_rows(wire)
    if not file:
        sys.stdout.write(render_header(rows))
        return
    with open(file) as stream:
        sys.stdout.write(render_filter(rows, stream.read(), share))


if __name__ == "__main__":
    main(*sys.argv[1:])
