from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from hamr_edge.cli import hamr_edge

WORKFLOW = (Path(__file__).parent.parent / "docs" / "bench-workflow.yml").read_text(encoding="utf-8")
# A command goes on over the lines of a folded block, which are further in than the step's keys.
COMMANDS = re.findall(r"^ *(?:- run: |# *)?(hamr-edge \w+ .*(?:\n {10,}(?!hamr-edge).*)*)", WORKFLOW, re.MULTILINE)


def test_the_workflow_exports_and_benches() -> None:
    assert sorted(shlex.split(command)[1] for command in COMMANDS) == ["bench", "bench", "export"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:16])
def test_its_commands_have_these_options(command: str) -> None:
    _, name, *words = shlex.split(command)
    shown = CliRunner().invoke(hamr_edge, [name, "--help"])
    assert shown.exit_code == 0
    asked = {word for word in words if word.startswith("-")}
    assert asked
    assert asked <= set(re.findall(r"--?[a-z][a-z-]*", shown.output))
