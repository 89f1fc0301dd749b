"""The machine's first process: runs one command, reaps orphans, and ends with the command; then everything else ends, too.

Started as `python3 -IS init.py DIRECTORY COMMAND...`. The terminal's signals are the command's business.
"""

from __future__ import annotations

import os
import signal
import sys

_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)


def main() -> int:
    """Run the command; return its status, 128 and the number when a signal ended it."""
    for number in _TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(sys.argv[1])
    command = sys.argv[2:]
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, setsigdef=[*_TERMINAL, signal.SIGPIPE, signal.SIGXFSZ])
    except OSError as error:
        print(f"release: error: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


sys.exit(main())
