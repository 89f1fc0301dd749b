"""What qemu-img prints, as its releases write it."""

import pytest

from pcocc_runtime.images import qemu_img_text


@pytest.mark.parametrize(
    ("line", "extent"),
    [
        ('[{ "start": 0, "length": 512, "depth": 0, "present": true, "zero": false, "data": true, "offset": 327680},',
         (512, 328192)),
        ('{ "start": 0, "length": 512, "depth": 0, "present": true, "zero": false, "data": true, "compressed": false, '
         '"offset": 327680},', (512, 328192)),
        ('{ "start": 0, "length": 512, "depth": 0, "present": true, "zero": false, "data": true}]', (512, 0)),
        ('{ "start": 0, "length": 512, "depth": 0, "present": true, "zero": false, "data": true, "compressed": true}]', (512, 0)),
        ('{ "start": 0, "length": 512, "depth": 0, "present": false, "zero": true, "data": false},', (0, 0)),
        ("qemu-img: Could not open 'x': [{", None),
        ("", None),
        ("7", None),
    ],
)  # fmt: skip
def test_what_qemus_map_says_is_read_as_qemu_7_and_8_write_it(line: str, extent: tuple[int, int] | None) -> None:
    assert qemu_img_text.parse_extent(line) == extent


def test_a_line_of_brackets_alone_is_none_of_maps() -> None:
    assert qemu_img_text.parse_extent('{"data": ' + "[" * 100_000) is None


@pytest.mark.parametrize(
    ("line", "done"), [("(0.00/100%)", 0), ("(12.34/100%)", 1234), ("(100.00/100%)", 10000), ("100%", None), ("", None)]
)
def test_progress_is_told_from_complaints(line: str, done: int | None) -> None:
    assert qemu_img_text.parse_progress(line) == done


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            'qemu-img: Could not open \'json:{"driver": "vmdk"}\': invalid VMDK image descriptor',
            "invalid VMDK image descriptor",
        ),
        ("qemu-img: error while writing: No space left on device", "error while writing: No space left on device"),
    ],
)
def test_a_complaint_is_shown_without_our_own_names(line: str, said: str) -> None:
    assert qemu_img_text.clean_line(line) == said
