from __future__ import annotations

from pathlib import Path

import pytest

from hamr_edge.cli import main


@pytest.mark.parametrize("made_by_a_demo", [True, False])
def test_nothing_of_the_users_is_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made_by_a_demo: bool
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    if made_by_a_demo:
        (tmp_path / ".hamr-edge-demo").touch()
        (tmp_path / "run").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["demo", "-o", str(tmp_path)])
    assert ended.value.code == 2
    assert "is not empty; name a new folder with -o" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
