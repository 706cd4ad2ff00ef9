from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from hamr_edge import ArtifactError, GateError, HamrEdgeError, InputError, UnavailableError, __version__, cli

COMMANDS = ("demo", "doctor", "synth", "train", "ablate", "figures", "eval", "export", "lint", "bench", "embed")


def _run(*arguments: str) -> int:
    try:
        cli.main(list(arguments))
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def _raising(error: BaseException) -> click.Command:
    @click.command()
    def raising() -> None:
        raise error

    return raising


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> object:
    """Puts a command in the place of ``doctor``."""
    module = import_module("hamr_edge.doctor_command")

    def put(command: object) -> None:
        monkeypatch.setattr(module, "doctor", command)

    return put


def test_help_names_every_command_and_loads_no_library() -> None:
    code = (
        "import sys\n"
        "from hamr_edge.cli import main\n"
        "main(['--help'])\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'onnx', 'onnxruntime', 'onnxscript', 'pyarrow', 'rich'}, loaded\n"
        "assert not [name for name in sys.modules if name.endswith('command')]\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for command in COMMANDS:
        assert f"\n  {command} " in run.stdout
    assert "Exit codes" in run.stdout


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--version") == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", ["doctor", "eval", "bench"])
def test_a_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(command, "--help") == 0
    out = capsys.readouterr().out
    assert "--quiet" in out
    assert "--json" in out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("benhc", "No such command 'benhc'. Did you mean 'bench'?"),
        ("exprt", "Did you mean 'export'?"),
        ("xyz", "Commands: demo, doctor"),
    ],
)
def test_an_unknown_command_gets_a_hint(typed: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(typed) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HamrEdgeError("the reason"), 1),
        (InputError("the reason"), 2),
        (ArtifactError("the reason"), 2),
        (click.UsageError("the reason"), 2),
        (GateError("the reason"), 3),
        (UnavailableError("the reason"), 4),
        (OSError("the reason"), 1),
    ],
)
def test_an_error_becomes_its_exit_code(
    stub: object, error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(_raising(error))  # type: ignore[operator]
    assert _run("doctor") == code
    captured = capsys.readouterr()
    assert captured.err.endswith("Error: the reason\n")
    assert captured.out == ""


def test_an_interrupt_ends_with_130(stub: object, capsys: pytest.CaptureFixture[str]) -> None:
    stub(_raising(KeyboardInterrupt()))  # type: ignore[operator]
    assert _run("doctor") == 130
    assert "Stopped." in capsys.readouterr().err


def test_an_unexpected_error_is_not_swallowed(stub: object) -> None:
    stub(_raising(RuntimeError("a bug")))  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="a bug"):
        _run("doctor")


@pytest.mark.parametrize(("missing", "extra"), [("torch", "train"), ("onnx", "onnx"), ("safetensors.torch", "train")])
def test_a_missing_library_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str, extra: str
) -> None:
    def fail(name: str) -> object:
        del name
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(cli, "import_module", fail)
    assert _run("train") == 4
    assert f"needs {missing}; pip install 'hamr-edge[{extra}]'" in capsys.readouterr().err


def test_a_missing_module_of_our_own_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> object:
        del name
        raise ModuleNotFoundError("No module named 'hamr_edge.gone'", name="hamr_edge.gone")

    monkeypatch.setattr(cli, "import_module", fail)
    with pytest.raises(ModuleNotFoundError):
        _run("train")


def test_wrong_options_are_usage_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _run("eval", str(tmp_path / "model.onnx")) == 2
    assert "Missing option '--data'" in capsys.readouterr().err
    assert _run("eval", "--threads", "0", "model.onnx", "--data", ".") == 2
    assert "--threads" in capsys.readouterr().err
