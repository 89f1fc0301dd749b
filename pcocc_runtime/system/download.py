"""Files from web servers, with urllib: proxies as the environment says, certificates as the system has them."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from pcocc_runtime.errors import RequestError
from pcocc_runtime.progress import Watch
from pcocc_runtime.system import transfer

_SILENCE = 60  # seconds without a byte, after which the server is given up


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """Return the next request, as the base class does."""
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise RequestError(
                f"the server leads {req.full_url} to {newurl}, which is not encrypted", "fetch it from there yourself"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, target: Path, watch: Watch, algorithm: str) -> tuple[int, str]:
    """Write what an http or https URL has to a new file; return its length and sum."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "pcocc", "Accept-Encoding": "identity"})
        with urllib.request.build_opener(_NoDowngrade).open(request, timeout=_SILENCE) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
            _ensure_room(url, target, length)

            def read(size: int) -> bytes:
                try:
                    data: bytes = answer.read(size)
                except (OSError, http.client.HTTPException) as error:
                    raise _failed(url, error) from None
                return data

            got = transfer.copy(read, target, length, watch, algorithm)
    except (urllib.error.URLError, http.client.HTTPException, ValueError, TimeoutError) as error:
        raise _failed(url, error) from None
    if length and got[0] != length:
        raise RequestError(f"{url} could not be fetched: the connection ended after {got[0]} of {length} bytes", "try again")
    return got


def _ensure_room(url: str, target: Path, length: int) -> None:
    info = os.statvfs(target.parent)
    if length > info.f_bavail * info.f_frsize:
        raise RequestError(
            f"{url} has {length >> 20} MiB, and the file system of {target.parent} has room for "
            f"{info.f_bavail * info.f_frsize >> 20}",
            "free space there, or take another repository",
        )


def _failed(url: str, error: Exception) -> RequestError:
    reason = getattr(error, "reason", None) or error
    code = f"status {error.code}: " if isinstance(error, urllib.error.HTTPError) else ""
    return RequestError(f"{url} could not be fetched: {code}{getattr(reason, 'strerror', None) or reason}", "check the address")
