"""The ReID section of a DeepStream tracker for an artifact, and the check of one that somebody has edited.

Key names, their meaning and their defaults: NVIDIA, DeepStream developer guide, Gst-nvtracker, "Re-ID" (releases 6.2 to
9.2), and the configurations that NVIDIA ships with it. Some defaults (``inputOrder`` 1, ``keepAspc`` 1) are not what an
artifact needs, so a missing key is wrong. DeepStream makes each pixel ``netScaleFactor * (x - offset)``: one factor for
all channels, so the deviation of each channel has to be in the graph, and then offsets are 0 and the factor is 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hamr_edge.atomic import replace_file
from hamr_edge.errors import GateError, InputError, UnavailableError
from hamr_edge.export.config_faults import ConfigFault, raise_faults
from hamr_edge.sidecar import Sidecar, load_sidecar

_NETWORK_MODES = {"fp32": 0, "fp16": 1}
_WORKSPACE_MB, _HISTORY = 1000, 100
_OTHER_MODELS = ("tltEncodedModel", "uffFile")
"""Keys of NVIDIA's own files that name another network than ``onnxFile``."""


def write_tracker_config(artifact: Path) -> Path:
    """Write ``<artifact's name>.tracker.yml`` beside an artifact of the preset ``deepstream``, and check it.

    Args:
        artifact: With its sidecar, in the preset's form.

    Raises:
        InputError: The artifact is not of the preset.
        GateError: The engine that the section names is older than the artifact.
        UnavailableError: PyYAML, which reads it back, is not installed.
    """
    artifact = Path(artifact)
    path = artifact.with_suffix(".tracker.yml")
    lines = [
        "# Written by hamr-edge. Put this section in place of the one of the same name in NVIDIA's",
        "# config_tracker_NvDCF_accuracy.yml (reidType 2) or config_tracker_NvDeepSORT.yml (reidType 1).",
        "# Releases before 9.2 ask for absolute paths in onnxFile and modelEngineFile.",
        "# 'hamr-edge lint FILE' holds every key against the artifact again.",
        "ReID:",
        *(f"  {key}: {_format(value)}" for key, value in expected_keys(artifact, load_sidecar(artifact)).items()),
        f"  workspaceSize: {_WORKSPACE_MB}  # MB, of the build of the engine",
        f"  reidHistorySize: {_HISTORY}  # embeddings that a track keeps",
        "  outputReidTensor: 1  # the embeddings reach the application as metadata",
    ]

    def write(part: Path) -> None:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        raise_faults(find_tracker_faults(part), path)

    replace_file(path, write)
    return path


def expected_keys(artifact: Path, sidecar: Sidecar) -> dict[str, Any]:
    """What an artifact asks of the section, by key.

    Raises:
        InputError: The artifact is not of the preset.
    """
    if sidecar.form != "nchw" or sidecar.input != "rgb-float-255" or sidecar.precision not in _NETWORK_MODES:
        raise InputError(
            f"{artifact} takes no float pixels of 0..255 as DeepStream feeds them; 'hamr-edge export "
            "RUN|MODEL.onnx -o DIR --preset deepstream' makes an artifact that does"
        )
    return {
        "reidType": 2,
        "batchSize": sidecar.max_batch,
        "reidFeatureSize": sidecar.embedding_dim,
        "inferDims": [3, *sidecar.input_size_hw],
        "networkMode": _NETWORK_MODES[sidecar.precision],
        "inputOrder": 0,
        "colorFormat": 0,
        "offsets": [0.0, 0.0, 0.0],
        "netScaleFactor": 1.0,
        "keepAspc": 0,
        "addFeatureNormalization": 0,
        "onnxFile": artifact.name,
        "modelEngineFile": _engine_name(artifact, sidecar),
    }


def find_tracker_faults(path: Path) -> list[ConfigFault]:
    """Hold the ReID section of a tracker's configuration against the artifact that its ``onnxFile`` names.

    Keys that do not depend on the artifact, and sections of the tracker itself, are the user's.

    Args:
        path: YAML; ``onnxFile`` is looked for as given, from the file's folder.

    Returns:
        A fault for each key that is missing, stands twice, or contradicts the artifact; one for ``onnxFile`` where it
        names no artifact of the preset.

    Raises:
        InputError: The file is no such configuration.
        UnavailableError: PyYAML is not installed.
    """
    path = Path(path)
    section, doubled = _read_section(path)
    faults = [
        ConfigFault(key, f"the file has {key} more than once; which one counts depends on who reads it: keep one")
        for key in doubled
    ]
    faults += [
        ConfigFault(key, f"{key} names another network beside onnxFile: take it out")
        for key in _OTHER_MODELS
        if section.get(key)
    ]
    faults += _size_faults(section)
    try:
        artifact = _artifact_of(path, section)
        sidecar = load_sidecar(artifact)
        wanted = expected_keys(artifact, sidecar)
    except InputError as error:
        return [*faults, ConfigFault("onnxFile", str(error))]
    # A tracker of the kind NvDeepSORT, both kinds, other names and smaller batches run as well.
    free = {"onnxFile", "modelEngineFile"}
    faults += [
        ConfigFault(key, f"{key} is {section.get(key, 'missing')}, the artifact needs {value}")
        for key, value in wanted.items()
        if key not in free and not _agrees(key, section.get(key), value)
    ]
    return [*faults, *_engine_faults(path.parent, section, artifact, sidecar)]


def refuse_old_engine(artifact: Path, sidecar: Sidecar) -> None:
    """Find out before an artifact is written whether an engine lies there that was built of the one it replaces.

    Args:
        artifact: The file of the preset, perhaps not there yet.
        sidecar: For its batch and precision.

    Raises:
        GateError: DeepStream would load the engine without asking which network it was built from.
    """
    engine = artifact.with_name(_engine_name(artifact, sidecar))
    if engine.is_file():
        raise GateError(
            f"{engine} was built before {artifact.name}, which is about to be written, and DeepStream would use it all "
            f"the same: delete {engine.name}; nothing was published"
        )


def require_yaml() -> Any:
    """PyYAML, or how to get it.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise UnavailableError(
            "PyYAML, which reads tracker configurations, is not installed; pip install 'hamr-edge[deepstream]'"
        ) from error
    return yaml


def _read_section(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The section, and what the file or the section has more than once."""
    yaml = require_yaml()
    try:
        # NVIDIA's files begin with a directive that YAML does not have: %YAML:1.0
        lines = path.read_text(encoding="utf-8").splitlines()
        text = "\n".join(line for line in lines if not line.startswith("%YAML:"))
        section: dict[str, Any] = yaml.safe_load(text)["ReID"]
        section["onnxFile"]
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        doubled = _doubled(root) + _doubled({key.value: value for key, value in root.value}["ReID"])
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError) as error:  # ValueError: not UTF-8, no real date
        raise InputError(
            f"{path} is not a tracker's configuration with a section ReID and its onnxFile: {error}"
        ) from error
    return section, doubled


def _artifact_of(path: Path, section: dict[str, Any]) -> Path:
    named = section["onnxFile"]
    if not isinstance(named, str) or not named:
        raise InputError(f"onnxFile is {named!r}, expected the name of the preset's .onnx")
    return path.parent / named


def _doubled(mapping: Any) -> list[str]:
    """Keys that a mapping's node has more than once: PyYAML keeps the last, other readers the first."""
    counts = Counter(key.value for key, _ in mapping.value)
    return [str(key) for key, count in counts.items() if count > 1]


def _engine_name(artifact: Path, sidecar: Sidecar) -> str:
    """As DeepStream calls the engines that it builds."""
    return f"{artifact.name}_b{sidecar.max_batch}_gpu0_{sidecar.precision}.engine"


def _engine_faults(folder: Path, section: dict[str, Any], artifact: Path, sidecar: Sidecar) -> Iterator[ConfigFault]:
    """DeepStream loads an engine that is there without asking which network it was built from."""
    name, key = section.get("modelEngineFile"), "modelEngineFile"
    if not isinstance(name, str) or not name:
        found = repr(name) if key in section else "missing"
        yield ConfigFault(key, f"{key} is {found}, expected a file's name; write {_engine_name(artifact, sidecar)}")
        return
    batch, largest = section.get("batchSize"), sidecar.max_batch
    told = re.search(r"_b(\d+)_gpu\d+_", name)
    if told and type(batch) is int and batch <= largest and not batch <= int(told[1]) <= largest:
        yield ConfigFault(
            key,
            f"{key} {name} is by its name an engine for batches of {told[1]}, batchSize is {batch} and the artifact "
            f"takes {largest}: write {_engine_name(artifact, sidecar)}",
        )
    engine = folder / name
    if engine.is_file() and engine.stat().st_mtime_ns < artifact.stat().st_mtime_ns:
        yield ConfigFault(
            key,
            f"{key} {engine.name} is older than the artifact and would be used all the same: delete it, or touch it if "
            "it was built from this file",
        )


def _size_faults(section: dict[str, Any]) -> Iterator[ConfigFault]:
    """Sizes are the user's, but NVIDIA's range is above 0."""
    for key in ("workspaceSize", "reidHistorySize"):
        if key in section and not (type(section[key]) is int and section[key] > 0):
            yield ConfigFault(key, f"{key} is {section[key]!r}, DeepStream takes whole numbers from 1")
    if "workspaceSize" not in section:
        # It may build all the same: TensorRT leaves out what needs more, and fails only where nothing is left.
        message = (
            "workspaceSize is missing, and DeepStream's default is 20 MB: TensorRT may then choose slower kernels, or "
            f"find none; write {_WORKSPACE_MB}, as NVIDIA's own files do"
        )
        yield ConfigFault("workspaceSize", message, is_error=False)


def _agrees(key: str, found: Any, wanted: Any) -> bool:
    if isinstance(found, bool):  # NVIDIA's files have numbers, and True == 1
        return False
    if key == "reidType":
        return found in (1, 2, 3)
    if key == "batchSize":
        return isinstance(found, int) and 1 <= found <= wanted
    return bool(found == wanted)


def _format(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
