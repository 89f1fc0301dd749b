"""What the tasks of a checkpoint say to the command that waits for them all."""

import pytest

from pcocc_runtime.documents.checkpoint import FAR, PAUSED, TaskWord, decode_task_word, encode_task_word
from pcocc_runtime.documents.save import Pause, decode_pause, encode_pause


@pytest.mark.parametrize("said", [TaskWord(PAUSED, "vm0"), TaskWord(FAR, "vm12", 3 << 40, 5 << 40)])
def test_what_a_task_says_is_heard(said: TaskWord) -> None:
    assert decode_task_word(encode_task_word(said)) == said


@pytest.mark.parametrize("line", [b"", b"paused\n", b"paused vm0", b"far vm0 1\n", b"far vm0 x 2\n", b"paused n1\n"])
def test_any_other_line_of_the_step_says_nothing(line: bytes) -> None:
    assert decode_task_word(line) is None


@pytest.mark.parametrize("pause", [Pause(None), Pause("io-error")])
def test_what_a_keeper_says_of_a_pause_is_heard(pause: Pause) -> None:
    assert decode_pause(encode_pause(pause)) == pause


@pytest.mark.parametrize("line", [b"", b"no json", b"[]", b"7", b"{}"])
def test_a_line_that_is_no_answer(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode_pause(line)
