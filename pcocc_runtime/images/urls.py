"""The addresses of images on web servers, as people write them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from pcocc_runtime.errors import RequestError

SCHEMES = ("http", "https")
# what means something in a URL (RFC 3986); '%' because parts may be quoted already
_MARKS = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True, slots=True)
class Url:
    """An address as `asked` for, as `shown` (without name, password and query), and its Authorization header."""

    asked: str
    shown: str
    login: str | None = None


def parse_url(text: str) -> Url:
    """Return the address in a text; RequestError when it is not one of a web server."""
    try:
        parts = urlsplit(text)
        name, at, place = parts.netloc.rpartition("@")
        if parts.scheme not in SCHEMES or not parts.hostname or parts.port == 0:
            raise ValueError
        if not place.isascii():
            place = parts.hostname.encode("idna").decode() + (f":{parts.port}" if parts.port else "")
    except ValueError:
        wrong = f"{hide_secrets(text)} is not the address of a file on a web server"
        raise RequestError(wrong, "write http://HOST/PATH") from None
    query = f"?{_quote(parts.query)}" if parts.query else ""
    user, _colon, password = name.partition(":")
    login = (
        base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode(errors="surrogateescape")).decode()
        if at
        else None
    )
    shown = f"{parts.scheme}://{_quote(place)}{_quote(parts.path)}"
    return Url(shown + query, shown, login and f"Basic {login}")


def _quote(text: str) -> str:
    return quote(text, safe=_MARKS, errors="surrogateescape")


def hide_secrets(text: str) -> str:
    """Return a text that looks like a URL without the name, password and query that may be in it."""
    scheme, slashes, rest = re.split(r"[?#]", text, maxsplit=1)[0].partition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"
