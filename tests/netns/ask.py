"""Runs anywhere: ask whoami.py, all at once, and print `QUESTION ANSWER` for each question that is answered within a second.

Usage: ask.py QUESTION...; a question is tcp|udp,ADDRESS,PORT[,SOURCE_PORT]. Standard library only.
"""

import socket
import sys
import threading


def ask(question: str) -> None:
    kind, address, port, *source = question.split(",")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as wire:
        wire.settimeout(1)
        try:
            if source:
                wire.bind(("", int(source[0])))
            wire.connect((address, int(port)))
            if kind == "udp":
                wire.send(b"?")
            sys.stdout.write(f"{question} {wire.recv(100).decode()}")
        except OSError:
            pass


for one in [threading.Thread(target=ask, args=(words,)) for words in sys.argv[1:]]:
    one.start()
