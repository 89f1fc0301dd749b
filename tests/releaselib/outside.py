"""What of this machine's configuration reaches the isolated one: the mirror, apt's and pip's settings, certificates, proxies."""

from __future__ import annotations

import configparser
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from releaselib.suites import RootError

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_APT = re.compile(r'Acquire::(https?::(Proxy|Proxy::\S+|CaInfo|Verify-Peer)|Check-Valid-Until|Check-Date|Retries) "[^"]+";')
_PIP = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
_PASSED = re.compile(r"PIP_\w+|(https?|all|no)_proxy|TERM|COLORTERM|CI", re.IGNORECASE)
_LOCAL = re.compile(r"(?<![\w:/])(?:file://)?(/[^\s,]+)")


def read_mirror() -> str:
    """Return the address this machine takes its own release of Debian from; RootError when apt knows of none."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    listed = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL) $(CODENAME) $(COMPONENT)", "Created-By: Packages"]
    mirror = parse_mirror(subprocess.run(listed, capture_output=True, text=True, check=False).stdout, codename)
    if mirror is None:
        raise RootError(f"apt of this machine names no mirror of Debian's {codename}: run apt-get update, and look into /etc/apt")
    return mirror


def parse_mirror(text: str, codename: str) -> str | None:
    """Return the first address of Debian's own archive among lines `URI LABEL CODENAME COMPONENT`."""
    rows = [line.split() for line in text.splitlines()]
    return next((row[0].rstrip("/") for row in rows if row[1:] == ["Debian", codename, "main"]), None)


def read_apt_options() -> list[str]:
    """Return the settings of this machine's apt that say how an archive is reached and how old its lists may be."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    return [line.removesuffix(";") for line in done.stdout.splitlines() if _APT.fullmatch(line)]


def read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are the machine's, too: pip's settings, proxies, the kind of terminal."""
    return {key: value for key, value in environ.items() if _PASSED.fullmatch(key)}


def render_pip_config() -> str:
    """Return the settings of pip's configuration files of this machine as one file."""
    merged = configparser.RawConfigParser()
    merged.read([os.path.expanduser(path) for path in _PIP])
    return "".join(f"[{part}]\n" + "".join(f"{key} = {value}\n" for key, value in merged[part].items()) for part in merged.sections())


def find_local_paths(texts: Iterable[str]) -> list[Path]:
    """Return the absolute paths that are named in settings of pip and are there; the certificates first."""
    named = {Path(path) for text in texts for path in _LOCAL.findall(text)}
    return [path for path in (CERTIFICATES, *sorted(named - {CERTIFICATES})) if path.exists()]
