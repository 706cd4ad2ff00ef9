"""What ``pycuda.driver`` has, read from its source: it is compiled against CUDA, which is not everywhere.

``python -m tests.pycuda_source`` fetches two releases of it, and cuda-bindings, as ``make bindings`` does.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from tests.enterprise_bindings import ROOT, install_wheels, run_pip, tell_failures
from tests.faked_names import Entry

RELEASES = ("2024.1", "2026.1")
"""The oldest that we allow, and the newest that we know."""
FOLDER = ROOT.parent / "pycuda"
CUDA_BINDINGS = ("cuda-bindings==13.5.0", "cuda-pathfinder==1.9.0")
CUDA_FOLDER = ROOT / "cuda-bindings"
_WRAPPER = "src/wrapper/wrap_cudadrv.cpp"


def archive_path(release: str) -> Path:
    """Where the source of a release lies, if it was fetched."""
    return FOLDER / f"pycuda-{release}.tar.gz"


def read_driver(release: str) -> dict[str, Entry]:
    """What the C++ of a release makes known to Python."""
    with tarfile.open(archive_path(release)) as archive:
        member = archive.extractfile(f"pycuda-{release}/{_WRAPPER}")
        if member is None:
            raise FileNotFoundError(f"pycuda-{release} has no {_WRAPPER}")
        return definitions(member.read().decode())


def definitions(source: str) -> dict[str, Entry]:
    """Read the statements of Boost.Python: ``py::class_<...>("Stream", ...).def("synchronize", ...);``."""
    body = source[source.index("BOOST_PYTHON_MODULE") :]
    body = re.sub(r"/\*.*?\*/|//[^\n]*", "", body, flags=re.DOTALL)
    body = re.sub(r"^\s*#(?:[^\n]*\\\n)*[^\n]*", "", body, flags=re.MULTILINE)
    found: dict[str, Entry] = {}
    owner = ""
    for statement in body.split(";"):
        if exception := re.search(r"DECLARE_EXC\((\w+),", statement):
            found[exception.group(1)] = {"kind": "class"}
        made = re.search(r'py::(class_|enum_)\s*<.*?>\s*(?:\w+\s*)?\(\s*"(\w+)"', statement, re.DOTALL)
        if made:
            owner = made.group(2)
            found[owner] = {"kind": "class"}
            _add_constructors(owner, statement, found)
        elif re.search(r"^\s*\{?\s*typedef|^\s*py::def|^\s*DEF_SIMPLE_FUNCTION", statement):
            owner = ""
        _add_members(owner, statement, found)
    return found


def _add_members(owner: str, statement: str, found: dict[str, Entry]) -> None:
    for call in re.finditer(r"(\.|py::|\b)(def|add_property|value|DEF_SIMPLE_\w+)\s*\(", statement):
        arguments = _balanced(statement, call.end())
        name = re.match(r'\s*"?(\w+)"?', arguments)
        if name is None:
            continue
        path = f"{owner}.{name.group(1)}" if call.group(1) == "." else name.group(1)
        if call.group(2) == "add_property":
            # A second function sets it.
            found[path] = {"kind": "property", "writable": arguments.count("&cl::") > 1}
        elif call.group(2) == "value":
            found[path] = {"kind": "value"}
        elif path.endswith(".__init__"):
            found.setdefault(path, {"kind": "method", "signatures": []})["signatures"].append([["*", False]])
        else:
            found[path] = {"kind": "method", "signatures": [_keywords(arguments)]}


def _add_constructors(owner: str, statement: str, found: dict[str, Entry]) -> None:
    for made in re.finditer(r"py::init\s*<", statement):
        after = statement[made.end() :]
        signature = _keywords(_balanced(after, after.index("(") + 1))
        optional = "py::optional" in after[: after.index("(")]
        found[f"{owner}.__init__"] = {
            "kind": "method",
            "signatures": [[[name, required and not optional] for name, required in signature]],
        }


def _keywords(arguments: str) -> list[list[object]]:
    """Names of parameters; one without names takes them by place alone, and says nothing of how many."""
    found: list[list[object]] = []
    for args, arg, default in re.findall(r'py::args\s*\(([^)]*)\)|py::arg\s*\(\s*("\w+")\s*\)\s*(=)?', arguments):
        found += [[name, not default] for name in re.findall(r'"(\w+)"', args or arg)]
    named = [entry for entry in found if entry[0] != "self"]
    return named if found else [["*", False]]


def _balanced(text: str, start: int) -> str:
    depth, end = 1, start
    while depth:
        depth += (text[end] == "(") - (text[end] == ")")
        end += 1
    return text[start : end - 1]


def fetch_source(release: str) -> str:
    """Download a release, if it is not there; gives pip's last words where that fails, or nothing."""
    if archive_path(release).is_file():
        return ""
    # pip runs its setup for the metadata; that wants CUDA only when it compiles.
    options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--dest", str(FOLDER)]
    return run_pip(["download", *options, f"pycuda=={release}"])


def main() -> None:
    """Fetch all of it; what cannot be had is told, and is an error where ``HAMR_STRICT`` is set."""
    words = {f"pycuda {release}": fetch_source(release) for release in RELEASES}
    tell_failures({**words, CUDA_BINDINGS[0]: install_wheels(CUDA_BINDINGS, CUDA_FOLDER)})


if __name__ == "__main__":
    main()
