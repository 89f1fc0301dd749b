"""Isolated machines with other releases of Debian, in which the tests and the box run unchanged."""
