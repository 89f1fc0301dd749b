"""What a user reads when something is wrong."""

import pytest

from pcocc_runtime.errors import ConfigError, NodeError, PcoccError, RequestError, one_line, render


def test_an_error_is_a_line_and_a_hint() -> None:
    assert render(RequestError("no", "do this")) == "pcocc: error: no\nhint: do this"
    assert render(NodeError("no")) == "pcocc: error: no"


def test_a_configuration_error_names_file_line_and_key() -> None:
    error = ConfigError("expected text", "/etc/pcocc/x.yaml", 3, "a.b")
    assert render(error) == "pcocc: error: /etc/pcocc/x.yaml:3: a.b: expected text"
    assert str(ConfigError("bad", "f")) == "f: bad"
    assert issubclass(ConfigError, PcoccError)


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "a\r\n\tb"])
def test_no_message_can_span_lines_or_steer_a_terminal(text: str) -> None:
    assert one_line(text).isprintable()
    assert "\n" not in render(RequestError(text))
