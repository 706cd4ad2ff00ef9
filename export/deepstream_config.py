"""The ReID section of a DeepStream tracker for an artifact, and the check of one that somebody has edited.

Key names and their meaning: NVIDIA, DeepStream developer guide, Gst-nvtracker, "Re-ID" (releases 6.2 to 9.2), and the
configurations that NVIDIA ships with it. DeepStream makes each pixel ``netScaleFactor * (x - offset)``: one factor for
all channels, so the deviation of each channel has to be in the graph, and then offsets are 0 and the factor is 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hamr_edge.errors import GateError, InputError, UnavailableError
from hamr_edge.sidecar import Sidecar, load_sidecar

_NETWORK_MODES = {"fp32": 0, "fp16": 1}
_WORKSPACE_MB, _HISTORY = 1000, 100


def write_tracker_config(artifact: Path) -> Path:
    """Write ``<artifact's name>.tracker.yml`` beside an artifact of the preset ``deepstream``, and check it.

    Args:
        artifact: With its sidecar, in the preset's form.

    Raises:
        InputError: The artifact is not of the preset.
        UnavailableError: PyYAML, which reads it back, is not installed.
    """
    artifact = Path(artifact)
    path = artifact.with_suffix(".tracker.yml")
    lines = [
        "# Written by hamr-edge. Put this section in place of the one of the same name in NVIDIA's",
        "# config_tracker_NvDCF_accuracy.yml (reidType 2) or config_tracker_NvDeepSORT.yml (reidType 1).",
        "# 'hamr-edge lint FILE' holds every key against the artifact again.",
        "ReID:",
        *(f"  {key}: {_format(value)}" for key, value in expected_keys(artifact, load_sidecar(artifact)).items()),
        f"  workspaceSize: {_WORKSPACE_MB}  # MB, of the build of the engine",
        f"  reidHistorySize: {_HISTORY}  # embeddings that a track keeps",
        "  outputReidTensor: 1  # the embeddings reach the application as metadata",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        check_tracker_config(path)
    except Exception:
        path.unlink()
        raise
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
    mode = _NETWORK_MODES[sidecar.precision]
    return {
        "reidType": 2,
        "batchSize": sidecar.max_batch,
        "reidFeatureSize": sidecar.embedding_dim,
        "inferDims": [3, *sidecar.input_size_hw],
        "networkMode": mode,
        "inputOrder": 0,
        "colorFormat": 0,
        "offsets": [0.0, 0.0, 0.0],
        "netScaleFactor": 1.0,
        "keepAspc": 0,
        "addFeatureNormalization": 0,
        "onnxFile": artifact.name,
        "modelEngineFile": f"{artifact.name}_b{sidecar.max_batch}_gpu0_{['fp32', 'fp16'][mode]}.engine",
    }


def check_tracker_config(path: Path) -> None:
    """Hold the ReID section of a tracker's configuration against the artifact that its ``onnxFile`` names.

    Keys that do not depend on the artifact, and sections of the tracker itself, are the user's.

    Args:
        path: YAML; ``onnxFile`` is looked for as given, from the file's folder.

    Raises:
        InputError: The file is no such configuration, or names no artifact of the preset.
        GateError: A key is missing or contradicts the artifact; the message lists them all.
        UnavailableError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise UnavailableError(
            "PyYAML, which reads tracker configurations, is not installed; pip install 'hamr-edge[deepstream]'"
        ) from error
    try:
        # NVIDIA's files begin with a directive that YAML does not have: %YAML:1.0
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        section = yaml.safe_load("\n".join(line for line in lines if not line.startswith("%YAML:")))["ReID"]
        onnx_file = section["onnxFile"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is not a tracker's configuration with a section ReID and its onnxFile: {error}"
        ) from (error)
    artifact = Path(path).parent / str(onnx_file)
    wanted = expected_keys(artifact, load_sidecar(artifact))
    # A tracker of the kind NvDeepSORT, both kinds, other names and smaller batches run as well.
    free = {"onnxFile", "modelEngineFile"}
    wrong = [
        f"{key} is {section.get(key, 'missing')}, the artifact needs {value}"
        for key, value in wanted.items()
        if key not in free and not _agrees(key, section.get(key), value)
    ]
    if wrong:
        raise GateError(f"{path} contradicts {artifact.name}: {'; '.join(wrong)}")


def _agrees(key: str, found: Any, wanted: Any) -> bool:
    if key == "reidType":
        return found in (1, 2, 3)
    if key == "batchSize":
        return isinstance(found, int) and 1 <= found <= wanted
    return bool(found == wanted)


def _format(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
