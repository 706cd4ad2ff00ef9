"""What the cookbook and the README tell people to type exists: commands parse, imports resolve, links lead on."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from hamr_edge.cli import hamr_edge

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs" / "cookbook").glob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if language in languages]


def commands(page: Path) -> list[list[str]]:
    """The words behind each ``hamr-edge`` at the beginning of a line of a shell block, or in a line of code."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line.strip()
        for block in blocks(page, "sh")
        for line in re.sub(r"=\s*'[^']*'", "", re.sub(r"\\\n\s*", " ", block)).splitlines()
    ]
    lines += re.findall(r"`(hamr-edge [^`\n]+)`", BLOCK.sub("", text))
    found = [line for line in lines if line.startswith("hamr-edge ") and "..." not in line]
    return [shlex.split(line, comments=True)[1:] for line in found]


CASES = [(page, words) for page in PAGES for words in commands(page)]


def test_there_are_pages() -> None:
    names = {page.stem for page in PAGES}
    assert {"yolo-bytetrack", "eight-cameras-orin-nx", "deepstream", "no-gpu"} <= names
    assert len(CASES) > 20


@pytest.mark.parametrize(
    ("page", "words"), CASES, ids=[f"{page.stem}: {' '.join(words)[:70]}" for page, words in CASES]
)
def test_every_command_parses(page: Path, words: list[str]) -> None:
    command: click.Command = hamr_edge
    context = click.Context(hamr_edge, info_name="hamr-edge")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"{page.name}: there is no command {words[0]}"
        command, words = found, words[1:]
    options = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    known = {*options, "--help", "-h", "--version"}
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if not word.startswith("-"):
            continue
        name, equals, value = word.partition("=")
        assert name in known, f"{page.name}: {command.name} has no option {name}"
        option = options.get(name)
        if option is None or option.is_flag or equals:
            continue
        value = words[place] if place < len(words) else ""  # prose names options without their values
        place += 1
        if value and isinstance(option.type, click.Choice):
            assert value in option.type.choices, f"{page.name}: {name} {value}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_compile_and_their_imports_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hamr_edge"):
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    assert hasattr(module, name.name), f"{page.name}: {node.module} has no {name.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
    for name in re.findall(r"`((?:examples|docs|benchmarks)/[\w./-]+\.\w+)`", text):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_compile_and_their_imports_of_ours_exist(example: Path) -> None:
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hamr_edge"):
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, name.name) for name in node.names), example.name
