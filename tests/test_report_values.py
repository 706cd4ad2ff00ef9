from __future__ import annotations

from pathlib import Path

import pytest

from hamr_edge import InputError
from hamr_edge.benchmarks.report_values import read_report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no report of bench: expected schema, reference and results, got list"),
        ('{"rank1": 0.5, "map": 0.4}', "is no report of bench: .* got rank1, map"),
        ('{"schema": 2, "results": []}', "is of schema 2, this version reads 1"),
        ('{"schema": 1, "results": []}', "names no reference"),
        ('{"schema": 1, "reference": {}, "results": 3}', "entry 0 of results names no artifact"),
        ('{"schema": 1, "reference": {}, "results": [{"artifact": "a"}, 3]}', "entry 1 of results names no artifact"),
    ],
)
def test_what_is_no_report_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_report(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for name, message in (("none.json", "cannot be read: No such file"), ("bytes.json", "is no JSON"), ("", "cannot")):
        with pytest.raises(InputError, match=message):
            read_report(tmp_path / name)
