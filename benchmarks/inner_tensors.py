"""What flows inside an ``.onnx`` file: chosen tensors as further outputs, on ONNX Runtime's CPU, unoptimised."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.crop_canvas import lay_out_crops
from hamr_edge.input_description import parse_input_description
from hamr_edge.onnx_session import import_onnxruntime
from hamr_edge.sidecar import load_sidecar, sidecar_path

_Prepare = Callable[[NDArray[np.uint8]], NDArray[np.generic]]


class InnerTensors:
    """A session that gives inner tensors and takes other values for constants.

    Nothing is fused and no pair of casts is taken out, so a float16 tensor that is given out was float16.

    Args:
        session: An ``onnxruntime.InferenceSession``.
        prepare: Makes of crops what the ``nchw`` form takes; None where it takes them as they are.
    """

    def __init__(self, session: Any, prepare: _Prepare | None = None) -> None:
        self._session, self._prepare = session, prepare

    def run(
        self,
        batch: NDArray[np.uint8],
        names: Sequence[str],
        constants: Mapping[str, NDArray[Any]] | None = None,
    ) -> list[NDArray[Any]]:
        """Tensors by name, for one batch.

        Args:
            batch: (N, H, W, 3) uint8 crops at the network's size; the frame form gets them in one frame.
            names: Tensors to give, among those that were asked for when the file was opened.
            constants: Values that stand for those in the file.
        """
        feeds: dict[str, NDArray[Any]] = dict(constants or {})
        if {"frame", "boxes"} <= {value.name for value in self._session.get_inputs()}:
            feeds["frame"], feeds["boxes"] = lay_out_crops(batch)
        else:
            feeds["images"] = batch if self._prepare is None else self._prepare(batch)
        tensors: list[NDArray[Any]] = self._session.run(list(names), feeds)
        return tensors


@contextmanager
def open_inner_tensors(
    artifact: Path, model: Any, names: Sequence[str], constants: Sequence[str] = ()
) -> Iterator[InnerTensors]:
    """Open a changed copy of an artifact.

    Args:
        artifact: The ``.onnx`` file; the copy uses its weights where they lie in files of their own.
        model: What ``read_model`` gave of it. Not changed.
        names: Inner tensors to give.
        constants: Constants whose values can be replaced.
    """
    import onnx

    onnxruntime = import_onnxruntime()
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    present = {value.name for value in changed.graph.output}
    changed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    values = {item.name: item for item in changed.graph.initializer}
    changed.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, values[name].data_type, list(values[name].dims)) for name in constants
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with TemporaryDirectory() as folder:
        for location in _weight_files(changed):
            _bring(artifact.parent / location, Path(folder) / location)
        path = Path(folder) / artifact.name
        path.write_bytes(changed.SerializeToString())
        del changed
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        yield InnerTensors(session, _preparation(artifact))


def _preparation(artifact: Path) -> _Prepare | None:
    """What an artifact in the ``nchw`` form takes; models of others have no sidecar."""
    sidecar = load_sidecar(artifact) if sidecar_path(artifact).is_file() else None
    return parse_input_description(sidecar.input).prepare if sidecar is not None and sidecar.input else None


def read_model(artifact: Path) -> Any:
    """The graph of an ``.onnx`` file; weights in files of their own stay there."""
    import onnx

    return onnx.load(artifact, load_external_data=False)


def _weight_files(model: Any) -> set[str]:
    return {entry.value for item in model.graph.initializer for entry in item.external_data if entry.key == "location"}


def _bring(source: Path, target: Path) -> None:
    """Link a file of gigabytes, or copy it where the folders lie on different disks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
