"""What the isolated machine takes over from this one: the mirror, settings of apt and pip, certificates, proxies."""

from __future__ import annotations

import configparser
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .suites import RootError

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_APT = re.compile(r'Acquire::(https?::(Proxy|Proxy::\S+|CaInfo|Verify-Peer)|Check-Valid-Until|Check-Date|Retries) "[^"]+";')
_PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
_PIP_WAYS = ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout", "retries")
_PIP_FILES_NAMED = ("cert", "client-cert")
_PASSED = re.compile(r"(https?|all|no)_proxy|TERM|COLORTERM|CI", re.IGNORECASE)
_LOCAL = ("/", "file:")


def read_mirror() -> str:
    """Return the address from which this machine takes its own release of Debian; RootError when apt knows none."""
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
    """Return the variables that the machine has as well: proxies, the kind of terminal."""
    return {key: value for key, value in environ.items() if _PASSED.fullmatch(key)}


def read_pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return this machine's settings of pip that say how packages are reached, from its files and variables."""
    files = configparser.RawConfigParser()
    files.read([os.path.expanduser(path) for path in _PIP_FILES])
    found = {key: value for part in files.sections() for key, value in files[part].items()}
    found |= {key[4:].lower().replace("_", "-"): value for key, value in environ.items() if key.startswith("PIP_")}
    return plan_pip_settings(found)


def plan_pip_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that also work in the machine, which does not have this one's directories."""
    kept = {
        key: " ".join(word for word in settings[key].split() if not word.startswith(_LOCAL))
        for key in _PIP_WAYS
        if key in settings
    }
    named = {key: settings[key] for key in _PIP_FILES_NAMED if key in settings}
    return {key: value for key, value in {**kept, **named}.items() if value}


def find_certificates(pip_settings: Mapping[str, str]) -> list[Path]:
    """Return the files with certificates that are there: this machine's, and those pip is told."""
    named = {_CERTIFICATES, *(Path(pip_settings[key]) for key in _PIP_FILES_NAMED if key in pip_settings)}
    return sorted(path for path in named if path.is_file())
