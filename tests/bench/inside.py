"""Runs in the box as the user: times commands in alternation, so that other work of the machine slows all of them equally.

    python3 -c "$(cat inside.py)" ROUNDS JSON     JSON: a list of commands, each a list of words and an environment

Prints JSON: for each command a list of [wall seconds, CPU seconds, exit status].
"""

import json
import os
import sys
import time


def run(words, environ):
    """Run one command with its output thrown away; return what it took."""
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
    begin = time.monotonic()
    pid = os.posix_spawnp(words[0], words, {**os.environ, **environ}, file_actions=actions)
    _pid, status, usage = os.wait4(pid, 0)
    took = time.monotonic() - begin
    os.close(null)
    return [took, usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status)]


def main():
    """Run every command as often as asked, each round beginning with the next one."""
    rounds, commands = int(sys.argv[1]), json.loads(sys.argv[2])
    took = [[] for _ in commands]
    for number in range(rounds):
        order = range(len(commands))
        for which in [*order[number % len(order) :], *order[: number % len(order)]]:
            took[which].append(run(*commands[which]))
    print(json.dumps(took))


main()
