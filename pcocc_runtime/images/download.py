"""Downloads from web servers with urllib: proxies come from the environment, certificates from the system."""

from __future__ import annotations

import http.client
import os
import string
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images.urls import SCHEMES, Url, hide_secrets, parse_url
from pcocc_runtime.progress import Advance
from pcocc_runtime.system.copy import copy_stream

_SILENCE = 60  # seconds without a byte until a download is given up
_HINT = "check the address"


class _Follow(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web servers only, never from https to http; a login is sent to its own server only."""

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Follow a redirect as the base class does, if it is allowed."""
        del headers["URI"]
        if headers.get("Location"):
            old = parse_url(req.full_url)
            place = urljoin(
                old.asked, quote(headers["Location"], safe=string.punctuation, encoding="iso-8859-1")
            )
            scheme = urlsplit(place).scheme
            what = f"{old.shown} could not be fetched: the server redirects to {hide_secrets(place)}"
            if scheme not in SCHEMES:
                raise RequestError(f"{what}, which is not on a web server", _HINT)
            if old.asked.startswith("https:") and scheme != "https":
                raise RequestError(
                    f"{what}, which is not encrypted", "download it yourself, and import the file"
                )
            headers.replace_header("Location", parse_url(place).asked)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req: urllib.request.Request, *rest: Any) -> urllib.request.Request | None:
        """Return the next request, with the login if it goes to the same server."""
        following = super().redirect_request(req, *rest)
        login = req.unredirected_hdrs.get("Authorization")
        if following and login and urlsplit(following.full_url)[:2] == urlsplit(req.full_url)[:2]:
            following.add_unredirected_header("Authorization", login)
        return following


def fetch(url: Url, target: Path, watch: Advance, algorithm: str) -> tuple[int, str]:
    """Download an address to a new file; return its length in bytes and its sum."""
    with _open(url) as answer:
        length = _read_length(url, answer)
        _ensure_room(url, target, length)

        def read(size: int) -> bytes:
            try:
                data: bytes = answer.read(size)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _failed(url, error) from None
            return data

        got = copy_stream(read, target, length, watch, algorithm)
    if length and got[0] != length:
        reason = f"the connection ended after {got[0]} of {length} bytes"
        raise RequestError(f"{url.shown} could not be fetched: {reason}", "try again")
    return got


def _open(url: Url) -> Any:
    request = urllib.request.Request(
        url.asked, headers={"User-Agent": "pcocc", "Accept-Encoding": "identity"}
    )
    if url.login:
        request.add_unredirected_header("Authorization", url.login)
    try:
        return urllib.request.build_opener(_Follow).open(request, timeout=_SILENCE)
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
        raise _failed(url, error) from None


def _read_length(url: Url, answer: Any) -> int:
    """Return the length that the server announces, 0 for none; RequestError when it does not answer with the file."""
    what, told = f"{url.shown} could not be fetched: ", answer.headers.get("Content-Length") or "0"
    if answer.status != http.client.OK:
        raise RequestError(
            f"{what}the server answers with status {answer.status}, which is not the whole file", _HINT
        )
    if not (told.isascii() and told.isdecimal() and len(told) < 20):
        raise RequestError(f"{what}the server announces an invalid length: {told[:80]!r}", _HINT)
    return int(told)


def _ensure_room(url: Url, target: Path, length: int) -> None:
    info = os.statvfs(target.parent)
    if length > info.f_bavail * info.f_frsize:
        raise RequestError(
            f"{url.shown} has {length >> 20} MiB, and the file system of {target.parent} has room for "
            f"{info.f_bavail * info.f_frsize >> 20}",
            "free space there, or use another repository",
        )


def _failed(url: Url, error: Exception) -> RequestError:
    reason = getattr(error, "reason", None) or error
    code = f"status {error.code}: " if isinstance(error, urllib.error.HTTPError) else ""
    return RequestError(
        f"{url.shown} could not be fetched: {code}{getattr(reason, 'strerror', None) or reason}", _HINT
    )
