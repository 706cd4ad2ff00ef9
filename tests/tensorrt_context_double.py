"""A double of TensorRT's execution context, and of the model behind it: runs are computed by ONNX Runtime."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hamr_edge.onnx_session import open_session
from tests.double_memory import ALIGNMENT, FRESH
from tests.double_streams import Step, Touch
from tests.gpu_double import Machine, Profile, Run, machine, reads, writes


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    UINT8 = 5
    INT64 = 8


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


_TYPES = {
    "tensor(float)": (DataType.FLOAT, np.dtype(np.float32)),
    "tensor(float16)": (DataType.HALF, np.dtype(np.float16)),
    "tensor(uint8)": (DataType.UINT8, np.dtype(np.uint8)),
    "tensor(int8)": (DataType.INT8, np.dtype(np.int8)),
    "tensor(int32)": (DataType.INT32, np.dtype(np.int32)),
    "tensor(int64)": (DataType.INT64, np.dtype(np.int64)),
}


class Dims:
    """A shape: equal to a tuple or list of the same sides. What has no shape has no length either."""

    def __init__(self, sides: Sequence[int] | None) -> None:
        self._sides = None if sides is None else tuple(sides)

    def __len__(self) -> int:
        return -1 if self._sides is None else len(self._sides)

    def __getitem__(self, index: Any) -> Any:
        return (self._sides or ())[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | list):
            raise TypeError("__eq__(): incompatible function arguments")
        return self._sides == tuple(other)

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __repr__(self) -> str:
        return repr(self._sides)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model; sides are numbers, or names of what is open."""

    mode: TensorIOMode
    data_type: DataType
    dtype: np.dtype[Any]
    sides: tuple[int | str, ...]


class Model:
    """An ONNX model with the shapes that an engine of it was built for.

    Raises:
        ValueError: The profile is not of this model, or an output is of a shape that its inputs do not tell.
    """

    def __init__(self, onnx_bytes: bytes, profile: Profile) -> None:
        self._session, _ = open_session(onnx_bytes, "cpu", threads=1, fuse_quantised=False)
        self.profile = profile
        self.tensors: dict[str, Tensor] = {}
        for mode, found in (
            (TensorIOMode.INPUT, self._session.get_inputs()),
            (TensorIOMode.OUTPUT, self._session.get_outputs()),
        ):
            for entry in found:
                self.tensors[entry.name] = Tensor(mode, *_TYPES[entry.type], tuple(entry.shape))
        if set(profile) != set(self.names(TensorIOMode.INPUT)):
            raise ValueError(f"a profile of {sorted(profile)} for inputs {self.names(TensorIOMode.INPUT)}")
        if any(-1 in self.output_shape(name, self._smallest()) for name in self.names(TensorIOMode.OUTPUT)):
            raise ValueError("the shape of an output does not follow from the shapes of the inputs")

    def names(self, mode: TensorIOMode) -> list[str]:
        return [name for name, tensor in self.tensors.items() if tensor.mode is mode]

    def output_shape(self, name: str, inputs: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """The shape of an output; -1 where it depends on an input whose shape is not known."""
        known = {
            side: length
            for input_name, shape in inputs.items()
            for side, length in zip(self.tensors[input_name].sides, shape, strict=True)
            if isinstance(side, str)
        }
        return tuple(side if isinstance(side, int) else known.get(side, -1) for side in self.tensors[name].sides)

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = self.names(TensorIOMode.OUTPUT)
        return dict(zip(names, self._session.run(names, inputs), strict=True))

    def _smallest(self) -> dict[str, tuple[int, ...]]:
        return {name: shapes[0] for name, shapes in self.profile.items()}


class IExecutionContext:
    __slots__ = ("__weakref__", "_addresses", "_engine", "_gpu", "_logger", "_machine", "_model", "_profile_set")
    __slots__ += ("_own_bytes", "_ran", "_scratch", "_shapes", "_user_managed")

    def __init__(self) -> NoReturn:
        raise TypeError("IExecutionContext: No constructor defined!")

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        with machine().call("set_optimization_profile_async") as gpu:
            if profile_index != 0:
                return self._refuse(
                    "IExecutionContext::setOptimizationProfileAsync: Error Code 3: API Usage Error (Parameter check "
                    f"failed, condition: profileIndex < nbProfiles. profileIndex {profile_index})"
                )
            self._machine.streams.find(stream_handle, gpu)
            self._profile_set = True
            return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        wanted = tuple(shape)
        bounds = self._model.profile.get(name)
        if bounds is None or len(wanted) != len(bounds[0]):
            return self._refuse(
                "IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: "
                f"engineDims.nbDims == dims.nbDims. Set shape {list(wanted)} for {name})"
            )
        if any(not low <= side <= high for low, side, high in zip(bounds[0], wanted, bounds[2], strict=True)):
            return self._refuse(
                "IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: "
                f"satisfyProfile. Set dimension {list(wanted)} for tensor {name} does not satisfy any optimization "
                f"profiles. Valid range for profile 0: {list(bounds[0])}..{list(bounds[2])}.)"
            )
        self._shapes[name] = wanted
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._model.tensors:
            return self._refuse(f"IExecutionContext::setTensorAddress: given invalid tensor name: {name}")
        if memory % ALIGNMENT:
            raise self._machine.fault(f"set_tensor_address: {name} at {memory:#x} is not a multiple of {ALIGNMENT}")
        self._addresses[name] = int(memory)
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        if not self._user_managed:
            raise self._machine.fault("set_device_memory: the context has memory of its own")
        if memory % ALIGNMENT:
            raise self._machine.fault(f"set_device_memory: {memory:#x} is not a multiple of {ALIGNMENT}")
        if size < self._machine.options.scratch_bytes:
            self._refuse(f"IExecutionContext::setDeviceMemoryV2: Error Code 3: API Usage Error ({size} bytes)")
            return
        self._scratch = int(memory), int(size)

    def infer_shapes(self) -> list[str]:
        return [name for name in self._model.names(TensorIOMode.INPUT) if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Dims:
        tensor = self._model.tensors.get(name)
        if tensor is None:
            return Dims(None)
        if tensor.mode is TensorIOMode.INPUT:
            return Dims(self._shapes.get(name, tuple(side if isinstance(side, int) else -1 for side in tensor.sides)))
        return Dims(self._model.output_shape(name, self._shapes))

    def execute_async_v3(self, stream_handle: int) -> bool:
        with machine().call("execute_async_v3") as gpu:
            here, name = self._machine, "IExecutionContext::enqueueV3: Error Code 3: API Usage Error"
            stream = here.streams.find(stream_handle, gpu)
            if stream.handle == 0:
                raise here.fault("execute_async_v3: on the default stream, which holds up all others")
            if here.options.execute_error:
                return self._refuse(here.options.execute_error)
            if not self._profile_set:
                return self._refuse(f"{name} (No optimization profile has been set.)")
            if missing := self.infer_shapes():
                return self._refuse(f"{name} (condition: allInputDimensionsSpecified(routine). {missing})")
            for tensor, entry in self._model.tensors.items():
                if tensor not in self._addresses:
                    kind = entry.mode.name.lower()
                    return self._refuse(
                        f"{name} (Neither address or allocator is set for {kind} tensor {tensor}. Call "
                        "setTensorAddress before enqueue/execute.)"
                    )
            if self._user_managed and self._scratch is None:
                return self._refuse(f"{name} (The device memory has not been set.)")
            state = self._state()
            if stream.capture is not None:
                if here.options.capture_fails == "enqueue" or state[0] not in self._ran:
                    stream.capture.broken = "execute_async_v3"
                    return self._refuse(
                        "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (operation not permitted when "
                        "stream is capturing)"
                    )
            else:
                here.counts["executions"] += 1
                here.runs.append(Run(dict(self._shapes), by_graph=False))
                self._ran.add(state[0])
            here.put(stream, self._step(state))
            return True

    def _state(self) -> tuple[Any, ...]:
        """What a run depends on: shapes, addresses, scratch memory."""
        return tuple(sorted(self._shapes.items())), tuple(sorted(self._addresses.items())), self._scratch

    def _step(self, state: tuple[Any, ...]) -> Step:
        here, gpu, model = self._machine, self._gpu, self._model
        shapes, addresses, scratch = dict(self._shapes), dict(self._addresses), self._scratch
        context = weakref.ref(self)

        def span(name: str) -> tuple[int, int]:
            tensor = model.tensors[name]
            shape = shapes[name] if tensor.mode is TensorIOMode.INPUT else model.output_shape(name, shapes)
            return addresses[name], math.prod(shape) * tensor.dtype.itemsize

        def check_alive() -> None:
            if context() is None:
                raise here.fault("an execution context was let go before its run was done")

        def run() -> None:
            check_alive()
            inputs = {
                name: here.device_bytes(gpu, *span(name)).copy().view(model.tensors[name].dtype).reshape(shape)
                for name, shape in shapes.items()
            }
            for name, values in model.run(inputs).items():
                raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
                here.device_bytes(gpu, addresses[name], raw.nbytes)[:] = raw
            if scratch is not None:
                here.device_bytes(gpu, *scratch)[:] = FRESH

        def fault() -> str:
            alive = context()
            if alive is None:
                return "its execution context was let go"
            return "" if alive._state() == state else "its execution context was changed since the capture"

        inputs = [reads(*span(name)) for name in model.names(TensorIOMode.INPUT)]
        outputs = [writes(*span(name)) for name in model.names(TensorIOMode.OUTPUT)]
        touches = [*inputs, *outputs, Touch(id(self), 1, True), *([] if scratch is None else [writes(*scratch)])]
        for touch in touches:
            if touch.size > 1:
                here.device_bytes(gpu, touch.start, touch.size)
        label = "execute " + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        return Step(label, run, tuple(touches), fault, lambda: here.runs.append(Run(shapes, by_graph=True)))

    def _refuse(self, words: str) -> bool:
        log_error(self._logger, words)
        return False

    def __del__(self) -> None:
        if hasattr(self, "_own_bytes") and not self._machine.closed:
            self._machine.memory[self._gpu].reserved -= self._own_bytes


def new_context(engine: Any, model: Model, logger: Any, here: Machine, gpu: int, own_bytes: int) -> IExecutionContext:
    """A context; ``own_bytes`` of device memory are its own, and with none the user brings them."""
    context = IExecutionContext.__new__(IExecutionContext)
    context._engine, context._model, context._logger, context._machine = engine, model, logger, here
    context._gpu, context._own_bytes, context._user_managed = gpu, own_bytes, own_bytes == 0
    context._shapes, context._addresses, context._ran = {}, {}, set()
    context._scratch, context._profile_set = None, False
    return context


def log_error(logger: Any, words: str) -> None:
    """Tell the logger, as the library does."""
    logger.log(logger.Severity.ERROR, words)
