"""``config.pbtxt`` of NVIDIA Triton Inference Server: written for an artifact, and held against one.

The schema is Triton's own, ``model_config.proto`` as ``tritonclient`` brings it. What Triton refuses beyond the schema,
and what it fills in, follows its source: ``model_config_utils.cc``, ``model_lifecycle.cc`` and
``backend_model_instance.cc``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hamr_edge.errors import GateError, InputError, UnavailableError
from hamr_edge.export.config_faults import ConfigFault
from hamr_edge.sidecar import Sidecar

CONFIG_NAME = "config.pbtxt"
_INPUT, _OUTPUT = "images", "embeddings"
_STAMP = "hamr_edge.artifact_sha256"


def runs_on(artifact: Path) -> tuple[str, str, str]:
    """Triton's platform and backend for an artifact, and the file name that it looks for."""
    if artifact.suffix == ".onnx":
        return "onnxruntime_onnx", "onnxruntime", "model.onnx"
    return "tensorrt_plan", "tensorrt", "model.plan"


def require_schema() -> tuple[Any, Any]:
    """Protobuf's reader of text and Triton's schema, or how to get them.

    Raises:
        UnavailableError: ``tritonclient`` is not installed, or without its part for gRPC.
    """
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except Exception as error:  # RuntimeError without gRPC, protobuf's own where it is of another release
        raise UnavailableError(
            f"tritonclient, which has Triton's schema, cannot be used ({error}); pip install 'hamr-edge[triton]'"
        ) from error
    return text_format, model_config_pb2


def format_config(artifact: Path, sidecar: Sidecar, name: str, queue_delay_us: int) -> str:
    """The text of ``config.pbtxt``, protobuf's text format.

    Args:
        artifact: Says by its suffix what runs it.
        sidecar: The artifact's.
        name: Of the model.
        queue_delay_us: How long Triton lets a request wait for others, in microseconds.
    """
    platform, _, _ = runs_on(artifact)
    height, width = sidecar.input_size_hw
    on_cpu = sidecar.precision == "int8-cpu"
    kind = "KIND_GPU" if platform == "tensorrt_plan" else "KIND_CPU" if on_cpu else "KIND_AUTO"
    largest = sidecar.max_batch
    preferred = sorted({max(1, largest // 4), max(1, largest // 2), largest})
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
        for key, value in _facts(sidecar).items()
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


def stamp_config(text: str, sidecar: Sidecar) -> str:
    """The text with the parameters that name its artifact changed to another's; all else stays as it was edited."""
    facts = _facts(sidecar)
    parameter = r'(key:\s*"(hamr_edge\.\w+)"[\s,;]*value\s*:?\s*{\s*string_value:\s*)"[^"]*"'
    return re.sub(
        parameter, lambda found: found[1] + json.dumps(facts[found[2]]) if found[2] in facts else found[0], text
    )


def read_config(folder: Path) -> str:
    """The text of a model's ``config.pbtxt``.

    Raises:
        InputError: It cannot be read, or is not UTF-8.
    """
    path = folder / CONFIG_NAME
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error


def parse_config(text: str, path: Path) -> Any:
    """A ``ModelConfig`` of Triton's schema.

    Args:
        text: Of the configuration.
        path: What to call it in a message.

    Raises:
        GateError: The schema does not read it.
        UnavailableError: See :func:`require_schema`.
    """
    text_format, schema = require_schema()
    try:
        return text_format.Parse(text, schema.ModelConfig())
    except text_format.ParseError as error:
        raise GateError(f"{path} is not as Triton's schema says: {error}") from error


def find_interface_faults(config: Any, artifact: Path, sidecar: Sidecar, name: str) -> Iterator[ConfigFault]:
    """Where the name, what runs it, the batch, or what goes in and out is not the artifact's.

    Args:
        config: From :func:`parse_config`.
        artifact: Says by its suffix what runs it.
        sidecar: The artifact's.
        name: What Triton will know the model by: its folder's name.
    """
    _, schema = require_schema()
    if config.name not in ("", name):  # Triton fills in what is missing
        yield ConfigFault("name", f"name is {config.name!r}, the model's {name!r}")
    platform, backend, file = runs_on(artifact)
    is_told = config.platform or config.backend or config.default_model_filename in ("", file)
    if config.platform not in ("", platform) or config.backend not in ("", backend) or not is_told:
        message = (
            f"platform is {config.platform!r} and backend {config.backend!r}, the artifact's {platform!r} and "
            f"{backend!r}; one of them is enough"
        )
        yield ConfigFault("platform", message)
    if not 1 <= config.max_batch_size <= sidecar.max_batch:
        message = f"max_batch_size is {config.max_batch_size}, the artifact takes 1 to {sidecar.max_batch}"
        yield ConfigFault("max_batch_size", message)
    images = schema.ModelInput(name=_INPUT, data_type=schema.TYPE_UINT8, dims=[*sidecar.input_size_hw, 3])
    embeddings = schema.ModelOutput(name=_OUTPUT, data_type=schema.TYPE_FP32, dims=[sidecar.embedding_dim])
    if [_without_idle_fields(value, schema) for value in config.input] != [images]:
        yield ConfigFault("input", f"input is {_words(config.input)}, the artifact's {_words([images])}")
    if [_without_idle_fields(value, schema) for value in config.output] != [embeddings]:
        yield ConfigFault("output", f"output is {_words(config.output)}, the artifact's {_words([embeddings])}")
    for field in ("batch_input", "batch_output"):
        if getattr(config, field):
            yield ConfigFault(field, f"{field} is set, the artifact has no such tensors; take it out")


def find_serving_faults(config: Any, sidecar: Sidecar, folder: Path) -> Iterator[ConfigFault]:
    """What Triton would refuse, or do otherwise, though the tensors are right; and a stamp of another artifact.

    Args:
        config: From :func:`parse_config`.
        sidecar: The artifact's.
        folder: The model's, where Triton looks for data to warm up with.
    """
    found = config.parameters[_STAMP].string_value if _STAMP in config.parameters else "missing"
    if found != sidecar.artifact_sha256:
        message = f"parameter {_STAMP} is {found!r}, the artifact's {sidecar.artifact_sha256!r}"
        yield ConfigFault("artifact_sha256", message)
    scheduling = config.WhichOneof("scheduling_choice")
    if scheduling not in (None, "dynamic_batching"):
        message = f"{scheduling} is for other models: requests for embeddings are independent; take it out"
        yield ConfigFault(scheduling, message)
    if config.model_transaction_policy.decoupled:
        yield ConfigFault("decoupled", "decoupled is true, the artifact gives one answer to each request; take it out")
    sizes = list(config.dynamic_batching.preferred_batch_size)
    if any(not 1 <= size <= config.max_batch_size for size in sizes):
        message = f"preferred_batch_size is {sizes}, expected 1 to max_batch_size, {config.max_batch_size}"
        yield ConfigFault("preferred_batch_size", message)
    for warm_up in config.model_warmup:
        if problem := _warm_up_problem(warm_up, config.max_batch_size, sidecar, folder):
            yield ConfigFault("model_warmup", f"model_warmup {warm_up.name!r} {problem}")


def find_graph_faults(artifact: Path, sidecar: Sidecar) -> Iterator[ConfigFault]:
    """Where an ONNX graph itself is not what its sidecar says."""
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
    images = [(_INPUT, onnx.TensorProto.UINT8, [None, *sidecar.input_size_hw, 3])]
    embeddings = [(_OUTPUT, onnx.TensorProto.FLOAT, [None, sidecar.embedding_dim])]
    for field, found, wanted in (("inputs", inputs, images), ("outputs", outputs, embeddings)):
        if found != wanted:
            yield ConfigFault(f"graph's {field}", f"the graph's {field} are {found}, its sidecar's {wanted}")


def _facts(sidecar: Sidecar) -> dict[str, str]:
    return {
        _STAMP: sidecar.artifact_sha256,
        "hamr_edge.source_sha256": sidecar.source_sha256,
        "hamr_edge.precision": sidecar.precision,
        "hamr_edge.resize": sidecar.resize,
    }


def _without_idle_fields(value: Any, schema: Any) -> Any:
    """An input or output without what changes nothing: a reshape to its own shape, and NHWC, which is right here."""
    copied = type(value)()
    copied.CopyFrom(value)
    if copied.HasField("reshape") and list(copied.reshape.shape) == list(copied.dims):
        copied.ClearField("reshape")
    if isinstance(copied, schema.ModelInput) and copied.format == schema.ModelInput.FORMAT_NHWC:
        copied.ClearField("format")
    return copied


def _words(values: Any) -> str:
    text_format, _ = require_schema()
    return f"[{', '.join(text_format.MessageToString(value, as_one_line=True).strip() for value in values)}]"


def _warm_up_problem(warm_up: Any, max_batch_size: int, sidecar: Sidecar, folder: Path) -> str:
    """Why Triton would not load the model; nothing where it warms up, or skips a batch of 0."""
    _, schema = require_schema()
    if warm_up.batch_size == 0:
        return ""
    if warm_up.batch_size > max_batch_size:
        return f"has batch_size {warm_up.batch_size}, max_batch_size is {max_batch_size}"
    if set(warm_up.inputs) != {_INPUT}:
        return f"feeds {sorted(warm_up.inputs)}, the artifact's input is {_INPUT!r}"
    value, dims = warm_up.inputs[_INPUT], [*sidecar.input_size_hw, 3]
    if (value.data_type, list(value.dims)) != (schema.TYPE_UINT8, dims):
        return f"feeds {_words([value])}, the artifact takes TYPE_UINT8 dims: {dims}"
    source = value.WhichOneof("input_data_type")
    if source is None:
        return "says nothing of the data; add random_data: true"
    if source == "input_data_file" and not (folder / "warmup" / value.input_data_file).is_file():
        return f"reads {folder / 'warmup' / value.input_data_file}, which is not there"
    return ""
