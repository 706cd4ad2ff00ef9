"""The sidecar: ``<artifact>.json``, everything known about an artifact, bound to it by SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hamr_edge.engine_record import EngineRecord, rebuild_hint, record_from_json
from hamr_edge.errors import ArtifactError

SCHEMA = 1
FORMS = ("crops", "frame", "nchw")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a user of an artifact must know. Sizes in pixels; mean and deviation in 0..1, in ``color_order``."""

    artifact_sha256: str
    """Hash of the artifact's bytes, lower-case hex."""
    input_size_hw: tuple[int, int]
    embedding_dim: int
    max_batch: int
    precision: str
    """``fp32``, ``fp16``, ``int8`` or ``int8-cpu``."""
    source_sha256: str
    """Hash of the checkpoint's weights, or of the ONNX that an engine was built from."""
    external_data_sha256: str = ""
    """Hash of ``<artifact>.data``, which holds the weights of an ONNX file above 2 GB; empty without one."""
    form: str = "crops"
    """``crops``: input ``images``, uint8 (N, H, W, 3). ``frame``: inputs ``frame``, uint8 (height, width, 3), and
    ``boxes``, float32 (N, 4) xyxy pixels. ``nchw``: input ``images`` as :attr:`input` says, for the tools of others."""
    input: str = ""
    """Of the ``nchw`` form, in the words of :func:`hamr_edge.input_description.parse_input_description`."""
    color_order: str = "BGR"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: str = ""
    network: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    """Data set, settings and scores as the checkpoint had them."""
    parity: dict[str, Any] = field(default_factory=dict)
    """Agreement with the source as measured before publishing. Of an artifact made of another artifact: with that one,
    whose own parity is kept as ``of_source``."""
    precision_detail: dict[str, Any] = field(default_factory=dict)
    """What stays in a wider type than ``precision`` and why; for int8, how its scales were found."""
    compact: dict[str, Any] = field(default_factory=dict)
    """How the projection to ``embedding_dim`` values was learned; empty where the embedding is the network's own."""
    engine: EngineRecord | None = None
    """How a TensorRT engine was built; None for every other artifact."""
    made_by: str = ""
    """Version of hamr-edge and of what it exported with."""
    schema: int = SCHEMA


def sidecar_path(artifact: str | Path) -> Path:
    """Where an artifact's sidecar lies."""
    return Path(f"{artifact}.json")


def external_data_path(artifact: str | Path) -> Path:
    """Where the weights of an ONNX file above 2 GB lie."""
    return Path(f"{artifact}.data")


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file, lower-case hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_sidecar(sidecar: Sidecar, path: Path) -> None:
    """Write ``sidecar`` as JSON to ``path``."""
    path.write_text(json.dumps(asdict(sidecar), indent=2) + "\n", encoding="utf-8")


def load_sidecar(artifact: str | Path) -> Sidecar:
    """Read an artifact's sidecar and hold it against the artifact.

    Raises:
        ArtifactError: The artifact or its sidecar is missing, the sidecar cannot be read, or the hash differs.
    """
    artifact, path = Path(artifact), sidecar_path(artifact)
    if not artifact.is_file():
        is_engine = artifact.suffix == ".engine"
        way_out = rebuild_hint(artifact) if is_engine else "'hamr-edge export RUN -o DIR' writes one"
        raise ArtifactError(f"artifact {artifact} is not there; {way_out}")
    if not path.is_file():
        of_others = (
            ""
            if artifact.suffix != ".onnx"
            else (
                "; for a model of others, 'hamr-edge bench' takes --input with what it expects, such as "
                "--input rgb-float-imagenet"
            )
        )
        raise ArtifactError(
            f"{artifact} has no sidecar {path.name}{_trust(artifact)}; copy both files together, or {_again(artifact)}"
            f"{of_others}"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        sidecar = _from_json(values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"sidecar {path} cannot be read: {error}; {_again(artifact)}") from error
    again = f"{_trust(artifact)}; copy all files again, or {_again(artifact, sidecar.engine)}"
    _check_hash(path, artifact, sidecar.artifact_sha256, again)
    if sidecar.external_data_sha256:
        _check_hash(path, external_data_path(artifact), sidecar.external_data_sha256, again)
    return sidecar


def require_record(artifact: str | Path, sidecar: Sidecar) -> EngineRecord:
    """How an engine was built.

    Raises:
        ArtifactError: Its sidecar does not say: it is that of another kind of artifact.
    """
    if sidecar.engine is None:
        raise ArtifactError(
            f"the sidecar of {artifact} must say which TensorRT built it and for which GPU, and says nothing of an "
            f"engine: it was written for another kind of artifact; {rebuild_hint(artifact)}"
        )
    return sidecar.engine


def _again(artifact: Path, record: EngineRecord | None = None) -> str:
    """How to make an artifact anew."""
    if artifact.suffix != ".engine":
        return "export again with 'hamr-edge export'"
    return rebuild_hint(artifact, record)


def _trust(artifact: Path) -> str:
    """Why an engine in particular is not taken without a sidecar of its own."""
    if artifact.suffix != ".engine":
        return ""
    return "; a TensorRT plan is code, and is not loaded unless its sidecar vouches for it"


def _check_hash(sidecar: Path, file: Path, expected: str, again: str) -> None:
    if not file.is_file():
        raise ArtifactError(f"{sidecar.name} vouches for {file.name}, which is not there; copy all files together")
    found = hash_file(file)
    if found != expected:
        raise ArtifactError(
            f"sidecar {sidecar.name} is not of this {file.name}: it vouches for SHA-256 {expected[:12]}..., "
            f"the file has {found[:12]}...{again}"
        )


def _from_json(values: dict[str, Any]) -> Sidecar:
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']!r}, this version reads {SCHEMA}")
    unknown = set(values) - {known.name for known in fields(Sidecar)}
    if unknown:
        raise ValueError(f"unknown entries {sorted(unknown)}")
    for name in ("embedding_dim", "max_batch"):
        if not isinstance(values[name], int) or values[name] < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {values[name]!r}")
    height, width = values["input_size_hw"]
    if not all(isinstance(side, int) and side >= 1 for side in (height, width)):
        raise ValueError(f"input_size_hw must be two sizes in pixels, got {values['input_size_hw']!r}")
    for name in ("artifact_sha256", "source_sha256", "precision", "form", "input", "color_order"):
        if not isinstance(values.get(name, ""), str):
            raise ValueError(f"{name} must be text, got {values[name]!r}")
    form, color_order = values.get("form", "crops"), values.get("color_order", "BGR")
    if form not in FORMS or color_order != "BGR":
        raise ValueError(f"this version runs the forms {', '.join(FORMS)} in BGR, got {form} in {color_order}")
    if (form == "nchw") != bool(values.get("input", "")):
        raise ValueError(f"input goes with the form nchw, got {values.get('input', '')!r} with {form}")
    if len(values["mean"]) != 3 or len(values["std"]) != 3:
        raise ValueError("mean and std must have three values each")
    mean, std = (tuple(float(value) for value in values[key]) for key in ("mean", "std"))
    engine = values.get("engine")
    return Sidecar(
        **{
            **values,
            "input_size_hw": (int(height), int(width)),
            "mean": mean,
            "std": std,
            "engine": None if engine is None else record_from_json(engine),
        }
    )
