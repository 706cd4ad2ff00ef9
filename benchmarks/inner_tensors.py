"""What flows inside an ``.onnx`` file: chosen tensors as further outputs, on ONNX Runtime's CPU, unoptimised."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.crop_canvas import lay_out_crops
from hamr_edge.onnx_session import import_onnxruntime


class InnerTensors:
    """A session that gives inner tensors and takes other values for constants.

    Nothing is fused and no pair of casts is taken out, so a float16 tensor that is given out was float16.

    Args:
        session: An ``onnxruntime.InferenceSession``.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

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
            feeds["images"] = batch
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
        yield InnerTensors(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))


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
