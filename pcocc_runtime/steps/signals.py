"""Signals that a step's task receives are passed on to its command in the guest."""

from __future__ import annotations

import os
import signal

FORWARDED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGQUIT, signal.SIGABRT, signal.SIGURG, signal.SIGXCPU, signal.SIGTSTP, signal.SIGCONT,
)  # fmt: skip


class Signals:
    """Signals caught from now on: `arrived` are not passed on yet, `wakeup` is readable when there may be more."""

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.stopped = False
        self.wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in FORWARDED:
            signal.signal(number, lambda number, _frame: self.arrived.append(number))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def have_ended(self) -> bool:
        """Tell whether a signal has arrived that ends the task if its command has not begun."""
        return any(number in (signal.SIGTERM, signal.SIGINT) for number in self.arrived)

    def take(self) -> list[str]:
        """Return the names, without SIG, of those that have arrived."""
        names = []
        while self.arrived:
            number = self.arrived.pop(0)
            # scancel sends SIGCONT before each SIGTERM; it is passed on only after a SIGTSTP
            if number != signal.SIGCONT or self.stopped:
                names.append(signal.Signals(number).name.removeprefix("SIG"))
            self.stopped = number == signal.SIGTSTP or (self.stopped and number != signal.SIGCONT)
        return names


def ignore() -> None:
    """Ignore them in a forked child: Slurm signals whole groups, but only the guest's command shall get them."""
    signal.set_wakeup_fd(-1)
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN)
