"""Where pcocc's own files are: here in a default installation, and where meson was told to put them in the
module it installs."""

from __future__ import annotations

LIBEXEC = "/opt/pcocc/libexec/pcocc"  # the programs that Slurm, systemd and pcocc itself start
SHARE = "/opt/pcocc/share/pcocc"  # files that are only read
