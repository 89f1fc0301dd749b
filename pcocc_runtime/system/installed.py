"""Where pcocc's own files are: the default installation, unless meson writes another into the installed module."""

from __future__ import annotations

LIBEXEC = "/opt/pcocc/libexec/pcocc"  # the programs that Slurm, systemd and pcocc itself start
COMMAND = "/opt/pcocc/bin/pcocc"
SHARE = "/opt/pcocc/share/pcocc"  # files that are only read
