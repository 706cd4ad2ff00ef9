"""What the tests of Triton's model repository share."""

from __future__ import annotations

from hamr_edge.export.triton_repository import WrittenModel


def edit(model: WrittenModel, old: str, new: str) -> str:
    """Change a configuration as a hand would; gives the text."""
    path = model.folder / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path.read_text()
