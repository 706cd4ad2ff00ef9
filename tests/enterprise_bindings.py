"""The bindings of NVIDIA's enterprise TensorRT, loaded without TensorRT: three versions over empty libraries.

The wheels hold Python's view of the library: classes, methods, enums, docstrings. Linked against libraries that have
the names they want and nothing behind them, they import on any machine, and nothing can be made of them.
``python -m tests.enterprise_bindings`` fetches the wheels, as ``make bindings`` does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WHEELS = {
    "10.3.0": "tensorrt-cu12-bindings",  # JetPack 6.1 and 6.2
    "10.13.3.9": "tensorrt-cu12-bindings",  # JetPack 7.1
    "11.4.0.106": "tensorrt-cu13-bindings",
}
"""What our TensorRT code must run on: version to distribution."""
ROOT = Path(__file__).resolve().parents[1] / ".bindings" / str(sys.implementation.cache_tag)
"""Where the wheels are unpacked; they hold compiled code for one Python."""
STRICT = "HAMR_STRICT"
"""Where this variable is set, as it is in CI, what is lacking of NVIDIA's is an error and no reason to skip a test."""
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getNvOnnxParserVersion",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


def bindings_folder(version: str) -> Path:
    """The folder to put on ``sys.path``; it is there if the wheel was fetched."""
    return ROOT / version


def fetch(version: str) -> str:
    """Install a wheel into its folder, if it is not there; gives pip's last words where that fails, or nothing."""
    # No dependencies: NVIDIA's libraries are what the empty ones stand for.
    return install_wheels([f"{WHEELS[version]}=={version}"], bindings_folder(version))


def install_wheels(requirements: Sequence[str], folder: Path) -> str:
    """Install wheels, without what they depend on, into a folder, if it is not there; see :func:`run_pip`."""
    if folder.is_dir():
        return ""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        target = Path(temporary) / "wheel"
        words = run_pip(["install", "--no-deps", "--only-binary=:all:", "--target", str(target), *requirements])
        if not words:
            target.rename(folder)
    return words


def run_pip(arguments: Sequence[str]) -> str:
    """Run a command of pip; gives its last words where that fails, or nothing."""
    command, *rest = arguments
    options = ["--quiet", "--disable-pip-version-check", "--retries=1"]
    run = subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *rest], capture_output=True, text=True, check=False
    )
    return (run.stderr.strip().splitlines() or ["pip gives no reason"])[-1] if run.returncode else ""


def write_stub_libraries(folder: Path, major: str) -> None:
    """Compile the libraries that bindings of a major version link with; each of their functions gives a null pointer.

    Raises:
        FileNotFoundError: There is no C compiler.
        subprocess.CalledProcessError: It failed.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("no C compiler: neither cc nor gcc is on PATH")
    source = folder / "stub.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS), encoding="ascii")
    for name in _LIBRARIES:
        library = f"lib{name}.so.{major}"
        options = ["-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run([compiler, *options], check=True, capture_output=True)


def run_with_bindings(version: str, libraries: Path, arguments: list[str], stdin: str = "") -> str:
    """Run Python where ``tensorrt_bindings`` is that version, over the libraries of a folder; gives its stdout.

    Every version needs a process of its own: they share names that live in an interpreter once.
    """
    paths = [str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": str(bindings_folder(version)),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)),
    }
    command = [sys.executable, "-W", "error", *arguments]
    run = subprocess.run(
        command, input=stdin, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if run.returncode:
        raise RuntimeError(f"bindings {version}: {run.stderr.strip()}")
    return run.stdout


def main() -> None:
    """Fetch every version; one that cannot be had is told, and is an error where ``HAMR_STRICT`` is set."""
    tell_failures({f"{WHEELS[version]} {version}": fetch(version) for version in WHEELS})


def tell_failures(words: dict[str, str]) -> None:
    """Tell what could not be fetched and why, by its name; what was fetched has no words."""
    failures = {name: why for name, why in words.items() if why}
    for name, why in failures.items():
        sys.stderr.write(f"{name} is not to be had here, its tests are skipped: {why}\n")
    if failures and os.environ.get(STRICT):
        sys.exit(f"{STRICT} is set: all bindings are wanted")


if __name__ == "__main__":
    main()
