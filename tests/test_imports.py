"""The design's import rules, read from the sources, and what an import costs."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import hamr_edge

PACKAGES = {
    "hamr_edge": "hamr_edge",
    "trainer": "hamr_edge.trainer",
    "export": "hamr_edge.export",
    "calibration": "hamr_edge.calibration",
    "benchmarks": "hamr_edge.benchmarks",
}
STAGES = tuple(package for package in PACKAGES.values() if package != "hamr_edge")
ALLOWED = {
    "hamr_edge": (),
    "hamr_edge.trainer": (),
    "hamr_edge.calibration": (),
    "hamr_edge.benchmarks": (),
    "hamr_edge.export": (
        "hamr_edge.trainer.network",
        "hamr_edge.trainer.checkpoint",
        "hamr_edge.trainer.synthetic",  # procedural crops for a check without data
        "hamr_edge.calibration",
    ),
}
"""The other stages' modules that each package may import; every stage may import the runtime."""
HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "tensorrt",
    "pycuda",
    "pyarrow",
    "safetensors",
    "matplotlib",
    "faiss",
    "yaml",
    "tritonclient",
)
"""What the runtime imports when it is first needed, not before."""


def _modules() -> Iterator[str]:
    for package in PACKAGES.values():
        yield package
        for module in pkgutil.iter_modules(import_module(package).__path__):
            if f"{package}.{module.name}" not in PACKAGES.values():
                yield f"{package}.{module.name}"


MODULES = sorted(_modules())


def _package(module: str) -> str:
    return next((stage for stage in STAGES if module == stage or module.startswith(f"{stage}.")), "hamr_edge")


def _source(module: str) -> Path:
    parent, _, name = module.rpartition(".")
    if module in PACKAGES.values():
        return Path(import_module(module).__path__[0]) / "__init__.py"
    return Path(import_module(parent).__path__[0]) / f"{name}.py"


def _imports(module: str, top_level_only: bool = False) -> set[str]:
    """Full names that a module's import statements name; ``from a import b`` gives ``a`` and ``a.b``."""
    tree = ast.parse(_source(module).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write the full name"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@pytest.mark.parametrize("module", MODULES)
def test_a_stage_imports_only_what_the_design_lets_it(module: str) -> None:
    own = _package(module)
    others = tuple(stage for stage in STAGES if stage != own)
    allowed = ALLOWED[own]
    wrong = {
        name
        for name in _imports(module)
        if _within(name, others) and not _within(name, allowed) and not any(a.startswith(f"{name}.") for a in allowed)
    }
    assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_a_command(module: str) -> None:
    commands = {name for name in _imports(module) if name.startswith("hamr_edge.") and name.endswith("command")}
    assert not commands


@pytest.mark.parametrize("module", MODULES)
def test_a_private_name_stays_in_its_module(module: str) -> None:
    names = {name for name in _imports(module) if name.startswith("hamr_edge.")}
    private = {
        name for name in names if any(part.startswith("_") and part != "__version__" for part in name.split("."))
    }
    assert not private


@pytest.mark.parametrize("module", [module for module in MODULES if _package(module) in ("hamr_edge", STAGES[-1])])
def test_the_runtime_imports_heavy_libraries_when_needed_only(module: str) -> None:
    heavy = {name for name in _imports(module, top_level_only=True) if _within(name, HEAVY)}
    assert not heavy


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module: str) -> None:
    import_module(module)


def _loaded_by(code: str) -> set[str]:
    listing = "import sys; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import hamr_edge",
        "import hamr_edge.cli",
        "import hamr_edge.benchmarks",
        "import hamr_edge.benchmarks.command, hamr_edge.eval_command, hamr_edge.doctor_command",
    ],
)
def test_a_light_import_loads_no_heavy_library(code: str) -> None:
    loaded = _loaded_by(code)
    assert {"numpy", "cv2"} <= loaded
    assert not loaded & {*HEAVY, "scipy", "pandas"}


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert hamr_edge.__version__ == version("hamr-edge")
