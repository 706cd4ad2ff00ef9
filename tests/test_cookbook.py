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


def typed_commands(page: Path) -> list[list[str]]:
    """The words behind each ``hamr-edge`` that begins a line of a shell block, or that a systemd unit starts."""
    lines = [
        line.strip()
        for block in blocks(page, "sh")
        for line in re.sub(r"=\s*'[^']*'", "", re.sub(r"\\\n\s*", " ", block)).splitlines()
    ]
    for block in blocks(page, "ini"):
        lines += re.findall(r"^ExecStart=\S*/(hamr-edge .*)", block, re.MULTILINE)
    return split(lines)


def named_commands(page: Path) -> list[list[str]]:
    """The same of a line of prose, which may leave out what a command needs."""
    return split(re.findall(r"`(hamr-edge [^`\n]+)`", BLOCK.sub("", page.read_text(encoding="utf-8"))))


def split(lines: list[str]) -> list[list[str]]:
    found = [line for line in lines if line.startswith("hamr-edge ") and "..." not in line]
    return [shlex.split(line, comments=True)[1:] for line in found]


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that some words call, and its own words."""
    command: click.Command = hamr_edge
    context = click.Context(hamr_edge, info_name="hamr-edge")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
    return command, words


TYPED, NAMED = ([(page, words) for page in PAGES for words in find(page)] for find in (typed_commands, named_commands))


def case_names(cases: list[tuple[Path, list[str]]]) -> list[str]:
    return [f"{page.stem}: {' '.join(words)[:70]}" for page, words in cases]


def test_there_are_pages() -> None:
    names = {page.stem for page in PAGES}
    assert {"yolo-bytetrack", "eight-cameras-orin-nx", "deepstream", "no-gpu"} <= names
    assert len(TYPED) > 20


@pytest.mark.parametrize(("page", "words"), TYPED, ids=case_names(TYPED))
def test_every_command_parses(page: Path, words: list[str]) -> None:
    command, own = find_command(words)
    context = click.Context(command, info_name=command.name)
    values, rest, order = command.make_parser(context).parse_args(list(own))
    for parameter in click.core.iter_params_for_processing(order, command.get_params(context)):
        try:
            _, rest = parameter.handle_parse_result(context, values, rest)
        except click.exceptions.Exit:  # --help and --version
            return
        except click.BadParameter as error:  # the reader's files are not here
            if "does not exist" not in error.message:
                pytest.fail(f"{page.name}: {error.format_message()}")
    assert not rest, f"{page.name}: {rest} is too much"


@pytest.mark.parametrize(("page", "words"), NAMED, ids=case_names(NAMED))
def test_every_option_in_prose_exists(page: Path, words: list[str]) -> None:
    command, own = find_command(words)
    known = {
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    } | {"--help", "-h", "--version"}
    named = {word.partition("=")[0] for word in own if re.match("--?[a-z]", word)}
    assert named <= known, f"{page.name}: {command.name} has no {named - known}"


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
