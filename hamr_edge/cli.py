"""The command line: names of the commands, each loaded when it is called, and exit codes for errors."""

from __future__ import annotations

import difflib
import logging
import sys
from importlib import import_module

import click

from hamr_edge import __version__
from hamr_edge.errors import HamrEdgeError, UnavailableError
from hamr_edge.stderr_log import StderrLog, quiet_opencv

_COMMANDS = {
    "demo": ("hamr_edge.demo_command:demo", "The whole way on procedural data: synth, train, export, bench, embed."),
    "doctor": ("hamr_edge.doctor_command:doctor", "What is installed, which devices and backends work, and why not."),
    "synth": ("hamr_edge.trainer.synth_command:synth", "Write a procedural data set in Market-1501's layout."),
    "train": ("hamr_edge.trainer.command:train", "Train a network on a folder of labelled person crops."),
    "ablate": ("hamr_edge.trainer.ablate_command:ablate", "Run a table of the paper's ablations, row after row."),
    "eval": ("hamr_edge.eval_command:evaluate_model", "Retrieval scores of a checkpoint or an artifact."),
    "export": ("hamr_edge.export.command:export", "Make a checked artifact of a checkpoint."),
    "lint": ("hamr_edge.export.lint_command:lint_models", "What TensorRT or ONNX Runtime would refuse or misread."),
    "figures": ("hamr_edge.trainer.figures_command:figures", "Best matches, activation maps and curves of a model."),
    "bench": ("hamr_edge.benchmarks.command:bench", "Is the artifact as good as the model, and how much faster."),
    "embed": ("hamr_edge.embed_command:embed", "Embed the people in a video, a folder of images or a camera."),
    "watch": ("hamr_edge.watch_command:watch", "See who is before the cameras, live."),
    "gallery": ("hamr_edge.gallery_command:gallery", "Known people: enrol by name, search, list, forget."),
}
_EXTRAS = {"torch": "train", "safetensors": "train", "onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx"}


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called, so that help and the runtime stay light."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module_name, attribute = _COMMANDS[cmd_name][0].split(":")
        try:
            command = getattr(import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").split(".")[0])
            if extra is None:
                raise
            raise UnavailableError(
                f"'hamr-edge {cmd_name}' needs {error.name}; pip install 'hamr-edge[{extra}]'"
            ) from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{module_name}:{attribute} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else f" Commands: {', '.join(_COMMANDS)}."
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hamr-edge")
def hamr_edge() -> None:
    """Person re-identification from training to the camera, with proof that nothing was lost on the way.

    Exit codes: 0 done; 1 unexpected; 2 wrong input; 3 a gate failed, nothing was published; 4 the device or library
    asked for is not there.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    run_and_exit(hamr_edge, "hamr-edge", arguments)


def run_and_exit(command: click.Command, name: str, arguments: list[str] | None = None) -> None:
    """Run a command and exit; the only place that turns an error into an exit code.

    Args:
        command: What to run.
        name: How it is called, for its messages.
        arguments: Those of the process when None.
    """
    quiet_opencv()
    logging.basicConfig(level=logging.WARNING, handlers=[StderrLog()])
    try:
        command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except HamrEdgeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that went away
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
