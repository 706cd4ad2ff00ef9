from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import pytest

from tests import enterprise_bindings, tensorrt_names
from tests.enterprise_bindings import STRICT, WHEELS, bindings_folder, run_with_bindings, write_stub_libraries
from tests.nvidia_builder import nvidia_builder, skip_unless_strict
from tests.tensorrt_names import missing_names, touched_names
from tests.test_imports import PACKAGES

_ROOT = Path(__file__).resolve().parents[1]
_VERSIONS = pytest.mark.parametrize("version", WHEELS)


@cache
def _touched() -> frozenset[str]:
    """What the sources of every package touch."""
    files = [file for folder in PACKAGES for file in (_ROOT / folder).glob("*.py")]
    return frozenset[str]().union(*(touched_names(file.read_text(encoding="utf-8")) for file in files))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of empty libraries for each major version."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the empty libraries are made for Linux alone")
    folders = {}
    for major in {version.split(".")[0] for version in WHEELS}:
        folders[major] = tmp_path_factory.mktemp(f"tensorrt{major}")
        try:
            write_stub_libraries(folders[major], major)
        except FileNotFoundError as error:
            skip_unless_strict(str(error))
    return folders


def _run(version: str, libraries: dict[str, Path], arguments: list[str], stdin: str = "") -> str:
    if not bindings_folder(version).is_dir():
        skip_unless_strict(f"{WHEELS[version]} {version} is not here; make bindings")
    return run_with_bindings(version, libraries[version.split(".")[0]], arguments, stdin)


def _missing(version: str, libraries: dict[str, Path], names: frozenset[str] | set[str]) -> list[str]:
    found: list[str] = json.loads(_run(version, libraries, [tensorrt_names.__file__], stdin=json.dumps(sorted(names))))
    return found


@_VERSIONS
def test_the_bindings_are_the_version_they_say(version: str, libraries: dict[str, Path]) -> None:
    code = "import tensorrt_bindings as trt; print(trt.__version__, trt.__file__)"
    found, file = _run(version, libraries, ["-c", code]).split()
    assert found == version
    assert bindings_folder(version) in Path(file).parents


@_VERSIONS
def test_every_name_we_touch_is_in_the_enterprise_bindings(version: str, libraries: dict[str, Path]) -> None:
    assert _missing(version, libraries, _touched()) == []


def test_every_name_we_touch_is_in_tensorrt_for_rtx() -> None:
    assert missing_names(nvidia_builder(), set(_touched())) == []


def test_the_sources_are_read() -> None:
    assert {"trt.Builder().build_serialized_network", "trt.OnnxParser().parse_from_file", "trt.ParserError().desc"} <= (
        _touched()
    )


@_VERSIONS
def test_what_is_wrong_is_reported(version: str, libraries: dict[str, Path]) -> None:
    names = touched_names(
        "def f(trt, logger):\n"
        "    builder = trt.Builder(logger)\n"
        "    builder.make_coffee()\n"
        "    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.LOOSELY_TYPED))\n"
        "    maker = trt.Builder(logger)\n"
        "    flags = trt.BuilderFlag\n"
        "    return builder.create_builder_config().no_such_option, trt.Magic\n"
    )
    assert _missing(version, libraries, names) == [
        "flags = trt.BuilderFlag: write trt.BuilderFlag out, a second name for it is not followed",
        "maker = trt.Builder(): add 'maker': 'Builder' to OBJECTS",
        "trt.Builder().create_builder_config().no_such_option: IBuilderConfig has no no_such_option",
        "trt.Builder().make_coffee: Builder has no make_coffee",
        "trt.Magic: tensorrt_bindings has no Magic",
        "trt.NetworkDefinitionCreationFlag.LOOSELY_TYPED: NetworkDefinitionCreationFlag has no LOOSELY_TYPED",
    ]


@_VERSIONS
def test_a_slip_in_our_own_source_is_reported(version: str, libraries: dict[str, Path]) -> None:
    source = (_ROOT / "export" / "engine_build.py").read_text(encoding="utf-8")
    slips = {"parse_from_file": "parse_file", "add_optimization_profile": "add_profile", "node_operator()": "node_op()"}
    for right, wrong in slips.items():
        assert right in source
        source = source.replace(right, wrong)
    assert {words.rpartition(": ")[2] for words in _missing(version, libraries, touched_names(source))} == {
        "IBuilderConfig has no add_profile",
        "OnnxParser has no parse_file",
        "ParserError has no node_op",
    }


@_VERSIONS
@pytest.mark.parametrize(
    ("owner", "name", "lacking"),
    [("builder_config", "max_num_tactics", ["10.3.0"]), ("trt.BuilderFlag", "FP16", ["11.4.0.106"])],
)
def test_what_one_version_lacks_must_be_asked_for(
    owner: str, name: str, lacking: list[str], version: str, libraries: dict[str, Path]
) -> None:
    use = f"{owner}.{name}"
    plain = touched_names(f"def f(trt, builder_config):\n    print({use})")
    assert bool(_missing(version, libraries, plain)) == (version in lacking)
    guarded = touched_names(f"def f(trt, builder_config):\n    if hasattr({owner}, '{name}'):\n        print({use})")
    assert _missing(version, libraries, guarded) == []


@_VERSIONS
def test_a_library_that_makes_no_builder_is_told(version: str, libraries: dict[str, Path], tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.touch()
    code = (
        "from pathlib import Path\n"
        "import tensorrt_bindings as trt\n"
        "from hamr_edge.errors import UnavailableError\n"
        "from hamr_edge.export.engine_build import parse_network\n"
        "try:\n"
        f"    parse_network(trt, Path({str(model)!r}))\n"
        "except UnavailableError as error:\n"
        "    print(error)\n"
    )
    assert _run(version, libraries, ["-c", code]).startswith(f"TensorRT {version} makes no builder: pybind11::init(): ")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("parsed.network.num_inputs", {"trt.INetworkDefinition()", "trt.INetworkDefinition().num_inputs"}),
        ("getattr(trt, 'Magic')", {"trt.Magic"}),
        ("getattr(trt, 'Magic', None)", set()),
        ("hasattr(trt, 'Magic') and trt.Magic.value", set()),
        ("hasattr(trt, 'Magic') or trt.Magic", {"trt.Magic"}),
        ("trt.Magic if hasattr(trt, 'Magic') else trt.Dust", {"trt.Dust"}),
        ("trt.Magic if ready and hasattr(trt, 'Magic') else 0", set()),
        ("if hasattr(trt, 'Magic'): trt.Magician", {"trt.Magician"}),
        ("if hasattr(trt, 'Magic'): pass\nelse: trt.Magic", {"trt.Magic"}),
        ("if not hasattr(trt, 'Magic'): trt.Magic", {"trt.Magic"}),
        ("self.cache: object = trt.Cache()", {"trt.Cache", "cache=trt.Cache()"}),
        ("a, b = trt.A(), 1", {"trt.A", "a=trt.A()"}),
        ("if made := trt.A(): pass", {"trt.A", "made=trt.A()"}),
        ("class A(trt.B):\n  def __init__(self): ...\n  def log(self): ...", {"trt.B", "trt.B().log"}),
    ],
)
def test_names_are_read_from_the_source(source: str, expected: set[str]) -> None:
    assert touched_names(f"trt\n{source}") == expected


def test_a_source_without_tensorrt_touches_nothing() -> None:
    assert touched_names("network.num_inputs; builder.make()") == set()


def test_a_wheel_that_cannot_be_had_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(enterprise_bindings, "ROOT", tmp_path / "bindings")
    monkeypatch.setattr(enterprise_bindings, "WHEELS", {"1.0": "not a distribution's name"})
    monkeypatch.delenv(STRICT, raising=False)
    enterprise_bindings.main()
    assert "1.0 is not to be had here, its tests are skipped: " in capsys.readouterr().err
    assert list((tmp_path / "bindings").iterdir()) == []
    monkeypatch.setenv(STRICT, "1")
    with pytest.raises(SystemExit, match="all bindings are wanted"):
        enterprise_bindings.main()
