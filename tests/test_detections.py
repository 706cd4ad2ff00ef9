from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.detections import load_detections
from hamr_edge.errors import InputError

_pixels = st.floats(-500, 2000, width=32)
_rows = st.lists(st.tuples(st.integers(1, 20), _pixels, _pixels, st.floats(1, 500), st.floats(1, 500), st.floats(0, 1)))


@given(rows=_rows, scale=st.sampled_from([1.0, 0.625, 2.0]))
def test_text_and_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]], scale: float) -> None:
    path = tmp_path_factory.mktemp("mot") / "det.txt"
    path.write_text("".join(f"{f},-1,{x!r},{y!r},{w!r},{h!r},{s!r},-1,-1,-1\n" for f, x, y, w, h, s in rows))
    detections = load_detections(path, scale)
    expected = sorted(rows, key=lambda row: row[0])  # stable: within a frame the file's order
    assert detections.frames.tolist() == [row[0] for row in expected]
    boxes = np.array([[x, y, x + w, y + h] for _, x, y, w, h, _ in expected]).reshape(-1, 4) * scale
    np.testing.assert_allclose(detections.boxes, boxes, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(detections.scores, [row[5] for row in expected], rtol=1e-6, atol=1e-9)
    assert detections.boxes.dtype == detections.scores.dtype == np.float32


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_boxes_of_a_frame_are_clipped_and_in_the_files_order(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.txt", "3,-1,5,5,10,10,.5\n\n 1, -1, -5, 2, 20, 30, .9\n3,-1,90,40,30,30\n")
    detections = load_detections(path)
    boxes, scores = detections.in_frame(3, (60, 100))
    np.testing.assert_array_equal(boxes, [[5, 5, 15, 15], [90, 40, 100, 60]])
    np.testing.assert_array_equal(scores, [0.5, 1])
    assert detections.in_frame(1, (60, 100))[0].tolist() == [[0, 2, 15, 32]]
    assert detections.in_frame(2, (60, 100))[0].shape == (0, 4)
    assert detections.lines.tolist() == [3, 1, 4]
    assert [detections.count_after(number) for number in (0, 1, 2, 3)] == [3, 2, 2, 0]


def test_low_scores_are_left_out_on_request(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.txt", "1,-1,0,0,9,9,.2\n1,-1,1,0,9,9,.7\n")
    assert len(load_detections(path)) == 2
    assert load_detections(path, min_score=0.5).lines.tolist() == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,-1,0,0,9,9\n1,-1,0,0\n", "line 2: expected frame,id,x,y,w,h.* got 4 columns"),
        ("1 -1 0 0 9 9\n", "line 1: .* got 1 columns"),
        ("\n1,-1,zero,0,9,9\n", "line 2: could not convert string to float: 'zero'"),
        ("0,-1,0,0,9,9\n", "line 1: frame is 0; .* count from 1"),
        ("1.5,-1,0,0,9,9\n", "frame is 1.5; frames are whole numbers"),
        ("1,-1,20,20,0,9\n", "width 0 and height 9"),
        ("1,-1,20,20,9,-9\n", "not two corners"),
        ("1,-1,1000,20,1e-6,9\n", "line 1: box is too thin"),
        ("1,-1,nan,0,9,9\n", "line 1: a value is not finite"),
        ("1,-1,0,0,9,9\n1e300,-1,0,0,9,9\n", r"line 2: frame is 1e300; .* end at 2\*\*53"),
        ("9,-1,0,0,9,9\n1,-1,0,-1e39,9,9\n", r"line 2: box of x 0, y -1e\+39, .* too large for float32"),
        ("1,-1,0,0,9,9,1e39\n", r"line 1: box .* and score 1e\+39 is too large for float32 \(at scale 1\)"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"d\.txt, {message}" if message.startswith("line") else message):
        load_detections(_write(tmp_path / "d.txt", text))


def test_a_scale_that_no_box_survives_names_a_line(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.txt", "\n1,-1,10,20,9,9\n")
    with pytest.raises(InputError, match=r"d\.txt, line 2: box of x 10, .* \(at scale 1e\+308\)"):
        load_detections(path, 1e308)


def test_a_box_outside_the_frame_names_its_line_and_the_option(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.txt", "2,-1,200,10,9,9\n1,-1,0,0,9,9\n2,-1,300,10,9,9\n")
    detections = load_detections(path)
    expected = r"d\.txt, line 1: box \(200, 10, 209, 19\) \(and 1 more\) lies wholly outside .*--detections-scale"
    with pytest.raises(InputError, match=expected):
        detections.in_frame(2, (100, 200))
    with pytest.raises(InputError, match=expected):
        detections.check_inside((100, 200))
    detections.in_frame(1, (100, 200))
    load_detections(path, 0.5).check_inside((100, 200))


def test_what_is_no_file_of_detections(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="is not there"):
        load_detections(tmp_path / "gone.txt")
    (tmp_path / "d.bin").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is not text"):
        load_detections(tmp_path / "d.bin")
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="scale of the detections must be above 0"):
            load_detections(tmp_path / "d.bin", scale)
    with caplog.at_level(logging.WARNING):
        assert len(load_detections(_write(tmp_path / "empty.txt", "\n"))) == 0
    assert "holds no boxes" in caplog.text


@pytest.mark.data
def test_the_real_file(data_root: Path) -> None:
    detections = load_detections(data_root / "video" / "vtest.det.txt", 0.625)
    assert len(detections) == 4359
    detections.check_inside((360, 480))
