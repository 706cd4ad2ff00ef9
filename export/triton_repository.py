"""An artifact as a model of NVIDIA Triton Inference Server: ``NAME/config.pbtxt`` and ``NAME/VERSION/model.onnx``.

The configuration is checked with Triton's own schema, ``model_config.proto`` as ``tritonclient`` brings it, field by
field against the sidecar and the graph.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamr_edge.atomic import make_folder, replace_file, temporary_name
from hamr_edge.errors import ArtifactError, GateError, InputError
from hamr_edge.sidecar import Sidecar, external_data_path, load_sidecar, sidecar_path

_PLATFORMS = {".onnx": ("onnxruntime_onnx", "model.onnx"), ".engine": ("tensorrt_plan", "model.plan")}
_INPUT, _OUTPUT = "images", "embeddings"
DEFAULT_QUEUE_DELAY_US = 5000


@dataclass(frozen=True, slots=True)
class WrittenModel:
    """A model in a repository."""

    folder: Path
    version: int
    is_checked: bool
    """False where ``tritonclient`` is not installed, so that Triton's schema could not be asked."""


def write_repository(
    artifact: Path, folder: Path, *, name: str | None = None, queue_delay_us: int = DEFAULT_QUEUE_DELAY_US
) -> WrittenModel:
    """Put an artifact into a model repository, whole or not at all.

    A model that is there already gets the artifact as its next version, if both take and give the same; Triton serves
    the newest. The sidecar lies beside the model, so ``hamr-edge bench NAME/1/model.onnx`` works too.

    Args:
        artifact: ``.onnx`` or ``.engine`` in the crops form, with its sidecar.
        folder: The repository; made if it is not there.
        name: Of the model; the artifact's name without its suffix when None.
        queue_delay_us: How long Triton lets a request wait for others, in microseconds.

    Raises:
        InputError: Not such an artifact, a name that Triton would not take, or another model of that name.
        ArtifactError: The sidecar is missing or wrong.
        GateError: The configuration is not what Triton's schema or the graph says; nothing is published.
    """
    artifact = Path(artifact)
    sidecar = load_sidecar(artifact)
    _check_artifact(artifact, sidecar)
    name = name or re.sub(r"[^\w-]", "_", artifact.stem)
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise InputError(f"a model's name is of letters, digits, - and _; got {name!r}")
    if queue_delay_us < 0:
        raise InputError(f"queue_delay_us must be at least 0, got {queue_delay_us}")
    config = format_config(artifact, sidecar, name, queue_delay_us)
    make_folder(folder, "repository")
    model = folder / name
    version = _next_version(model, config)
    making = temporary_name(folder / f"{name}-{version}")
    try:
        made = making / str(version)
        made.mkdir(parents=True)
        (making / "config.pbtxt").write_text(config, encoding="utf-8")
        target = made / _PLATFORMS[artifact.suffix][1]
        shutil.copyfile(artifact, target)
        shutil.copyfile(sidecar_path(artifact), sidecar_path(target))
        if external_data_path(artifact).is_file():  # the graph knows it by its name
            shutil.copyfile(external_data_path(artifact), made / external_data_path(artifact).name)
        is_checked = check_model(making, name)
        if version == 1:
            making.rename(model)
        else:
            made.rename(model / str(version))
            replace_file(model / "config.pbtxt", lambda path: path.write_text(config, encoding="utf-8"))
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return WrittenModel(model, version, is_checked)


def format_config(artifact: Path, sidecar: Sidecar, name: str, queue_delay_us: int) -> str:
    """The text of ``config.pbtxt``, protobuf's text format.

    Args:
        artifact: Says by its suffix what runs it.
        sidecar: The artifact's.
        name: Of the model.
        queue_delay_us: See :func:`write_repository`.
    """
    platform = _PLATFORMS[artifact.suffix][0]
    height, width = sidecar.input_size_hw
    on_cpu = sidecar.precision == "int8-cpu"
    kind = "KIND_GPU" if platform == "tensorrt_plan" else "KIND_CPU" if on_cpu else "KIND_AUTO"
    largest = sidecar.max_batch
    preferred = sorted({max(1, largest // 4), max(1, largest // 2), largest})
    facts = {
        "hamr_edge.artifact_sha256": sidecar.artifact_sha256,
        "hamr_edge.source_sha256": sidecar.source_sha256,
        "hamr_edge.precision": sidecar.precision,
        "hamr_edge.resize": sidecar.resize,
    }
    warm_ups = "".join(
        f"""model_warmup {{
  name: "batch of {count}"
  batch_size: {count}
  inputs {{
    key: "{_INPUT}"
    value {{ data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] random_data: true }}
  }}
}}
"""
        for count in sorted({1, largest})
    )
    parameters = "".join(
        f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
        for key, value in facts.items()
    )
    return f"""# Written by hamr-edge. Crops: uint8 BGR as OpenCV has them, resized to {height} x {width} by
# hamr_edge.preprocess.resize_crop; mean, deviation and channel order are inside the model.
name: "{name}"
platform: "{platform}"
max_batch_size: {largest}
input [ {{ name: "{_INPUT}" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }} ]
output [ {{ name: "{_OUTPUT}" data_type: TYPE_FP32 dims: [ {sidecar.embedding_dim} ] }} ]
instance_group [ {{ count: 1 kind: {kind} }} ]
dynamic_batching {{
  preferred_batch_size: [ {", ".join(map(str, preferred))} ]
  max_queue_delay_microseconds: {queue_delay_us}
}}
{warm_ups}{parameters}"""


def check_model(folder: Path, name: str | None = None) -> bool:
    """Hold a model of a repository against its newest artifact: every field that Triton would take amiss.

    Args:
        folder: The model's, with ``config.pbtxt``; perhaps edited by hand.
        name: What Triton will know it by; the folder's name when None.

    Returns:
        True when checked, False where ``tritonclient`` is not installed.

    Raises:
        ArtifactError: There is no model, or no sidecar beside it.
        GateError: Triton's schema does not read the configuration, or a field contradicts the artifact.
    """
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except ImportError:
        return False
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise GateError(f"{folder / 'config.pbtxt'} is not as Triton's schema says: {error}") from error
    versions = _versions(folder)
    artifacts = [folder / str(versions[-1]) / file for _, file in _PLATFORMS.values()] if versions else []
    artifact = next((path for path in artifacts if path.is_file()), None)
    if artifact is None:
        raise ArtifactError(f"{folder} holds no model.onnx or model.plan in a folder named by a number")
    sidecar = load_sidecar(artifact)
    wrong = [
        f"{field} is {found!r}, the artifact's {wanted!r}"
        for field, (found, wanted) in _fields(config, model_config_pb2, artifact, sidecar, name or folder.name).items()
        if found != wanted
    ]
    if wrong:
        raise GateError(f"{folder / 'config.pbtxt'} contradicts {artifact.name}: {'; '.join(wrong)}")
    return True


def _fields(config: Any, schema: Any, artifact: Path, sidecar: Sidecar, name: str) -> dict[str, tuple[object, object]]:
    """What the configuration says and what it should say, by field."""
    platform = {file: platform for platform, file in _PLATFORMS.values()}[artifact.name]
    dims = [*sidecar.input_size_hw, 3]
    images = (_INPUT, schema.TYPE_UINT8, dims)
    embeddings = (_OUTPUT, schema.TYPE_FP32, [sidecar.embedding_dim])
    fields: dict[str, tuple[object, object]] = {
        "name": (config.name, name),
        "platform": (config.platform, platform),
        "max_batch_size": (config.max_batch_size, sidecar.max_batch),
        "input": ([(value.name, value.data_type, list(value.dims)) for value in config.input], [images]),
        "output": ([(value.name, value.data_type, list(value.dims)) for value in config.output], [embeddings]),
        "artifact_sha256": (
            config.parameters["hamr_edge.artifact_sha256"].string_value,
            sidecar.artifact_sha256,
        ),
        "preferred_batch_size above max_batch_size": (
            [size for size in config.dynamic_batching.preferred_batch_size if size > config.max_batch_size],
            [],
        ),
        "model_warmup": (
            [
                (list(value.dims), value.data_type)
                for warm_up in config.model_warmup
                for value in warm_up.inputs.values()
            ],
            [(dims, schema.TYPE_UINT8)] * len(config.model_warmup),
        ),
    }
    if artifact.suffix == ".onnx":
        fields |= _graph_fields(artifact, sidecar)
    return fields


def _graph_fields(artifact: Path, sidecar: Sidecar) -> dict[str, tuple[object, object]]:
    """The same of the graph itself: a sidecar might be wrong."""
    import onnx

    graph = onnx.load(artifact, load_external_data=False).graph
    inputs, outputs = (
        [
            (
                value.name,
                value.type.tensor_type.elem_type,
                [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim],
            )
            for value in values
        ]
        for values in (graph.input, graph.output)
    )
    images = (_INPUT, onnx.TensorProto.UINT8, [None, *sidecar.input_size_hw, 3])
    embeddings = (_OUTPUT, onnx.TensorProto.FLOAT, [None, sidecar.embedding_dim])
    return {"the graph's inputs": (inputs, [images]), "the graph's outputs": (outputs, [embeddings])}


def _check_artifact(artifact: Path, sidecar: Sidecar) -> None:
    if artifact.suffix not in _PLATFORMS:
        raise InputError(f"Triton runs .onnx and .engine artifacts; {artifact} is neither")
    if sidecar.form != "crops":
        raise InputError(
            f"{artifact} is in the {sidecar.form} form, whose requests Triton cannot put into one batch; export "
            "--form crops for it"
        )
    if artifact.suffix == ".onnx" and sidecar.precision == "int8":
        raise InputError(
            f"{artifact} is Q/DQ for TensorRT, and slow on ONNX Runtime: give Triton its engine (--format engine), or "
            "int8-cpu for a server without GPU"
        )


def _versions(model: Path) -> list[int]:
    """What Triton takes for a version: it ignores other names, and those that begin with 0."""
    return sorted(int(path.name) for path in model.iterdir() if re.fullmatch("[1-9][0-9]*", path.name))


def _next_version(model: Path, config: str) -> int:
    """1 for a new model; what is there must be the same model but for its weights."""
    if not model.exists():
        return 1
    old = model / "config.pbtxt"
    if not old.is_file() or _without_parameters(old.read_text(encoding="utf-8")) != _without_parameters(config):
        raise InputError(
            f"{model} is there already, with another configuration: its clients may send what this artifact does not "
            "take; give another name, or move it away"
        )
    return max(_versions(model), default=0) + 1


def _without_parameters(config: str) -> str:
    return re.sub(r"^parameters \{.*\}\n", "", config, flags=re.MULTILINE)
