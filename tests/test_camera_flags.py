from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from hamr_edge.camera_flags import FOREVER, camera_flags, reconnect_rule
from hamr_edge.reconnect import Reconnect


def parse(*arguments: str) -> dict[str, Any]:
    parsed: dict[str, Any] = {}

    @click.command()
    @camera_flags
    def command(**flags: Any) -> None:
        parsed.update(flags)

    result = CliRunner().invoke(command, ["--model", "m.onnx", *arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return parsed


@pytest.mark.parametrize(
    ("arguments", "of_embed", "of_watch"),
    [
        ([], Reconnect(attempts=5), Reconnect(attempts=None)),
        (["--reconnect", "forever"], Reconnect(attempts=None), Reconnect(attempts=None)),
        (["--reconnect", "12"], Reconnect(attempts=12), Reconnect(attempts=12)),
        (["--reconnect", "0"], None, None),
    ],
)
def test_reconnecting_may_be_for_ever(
    arguments: list[str], of_embed: Reconnect | None, of_watch: Reconnect | None
) -> None:
    flags = parse(*arguments)
    assert reconnect_rule(flags) == of_embed
    assert reconnect_rule(flags, FOREVER) == of_watch


@pytest.mark.parametrize("text", ["-1", "always", "1.5", "", "inf"])
def test_what_is_no_number_of_attempts_is_said(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a number of attempts, 0 for none, nor 'forever'"):
        parse("--reconnect", text)
