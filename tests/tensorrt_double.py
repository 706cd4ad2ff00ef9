"""A double of TensorRT's runtime that computes on the CPU: what our runtime uses, and nothing else."""

from __future__ import annotations

import hashlib
import json
from enum import Enum
from pathlib import Path
from typing import NoReturn

from tests.double_memory import OutOfMemoryError
from tests.gpu_double import Machine, Profile, machine
from tests.tensorrt_context_double import (
    DataType,
    Dims,
    IExecutionContext,
    Model,
    TensorIOMode,
    log_error,
    new_context,
)

_MAGIC = b"plan for the double of TensorRT\n"
WRONG_VERSION = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Internal Error (The engine plan file is not compatible with this "
    "version of TensorRT, expecting library version 10.3.0.26 got 10.7.0.23, please rebuild.)"
)
"""A ``plan_error``: what TensorRT says of a plan of another version."""
_NO_PLAN = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion plan->header.magicTag == "
    "rt::kPLAN_MAGIC_TAG failed.)"
)
_EMPTY = (
    "IRuntime::deserializeCudaEngine: Error Code 3: API Usage Error (Cannot deserialize with an empty memory buffer.)"
)
_NO_MEMORY = (
    "[defaultAllocator.cpp::allocateAsync::48] Error Code 1: Cuda Runtime (out of memory) Requested size was {} bytes."
)


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        self._constructed = True

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "nvinfer1::ILogger::log"')


class ICudaEngine:
    __slots__ = ("__weakref__", "_gpu", "_machine", "_model", "_reserved", "_runtime")

    def __init__(self) -> NoReturn:
        raise TypeError("ICudaEngine: No constructor defined!")

    @property
    def num_io_tensors(self) -> int:
        return len(self._model.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return 1

    @property
    def device_memory_size_v2(self) -> int:
        return self._machine.options.scratch_bytes

    def get_tensor_name(self, index: int) -> str:
        return list(self._model.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._model.tensors[name].mode if name in self._model.tensors else TensorIOMode.NONE

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._model.tensors[name].data_type if name in self._model.tensors else DataType.FLOAT

    def get_tensor_shape(self, name: str) -> Dims:
        if name not in self._model.tensors:
            return Dims(None)
        return Dims([side if isinstance(side, int) else -1 for side in self._model.tensors[name].sides])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        if profile_index != 0 or name not in self._model.profile:
            return [Dims(None)] * 3
        return [Dims(shape) for shape in self._model.profile[name]]

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext | None:
        with self._machine.call("create_execution_context") as gpu:
            error = self._machine.options.context_error
            own = 0 if strategy is ExecutionContextAllocationStrategy.USER_MANAGED else self.device_memory_size_v2
            try:
                self._machine.memory[gpu].reserve(0 if error else own)
            except OutOfMemoryError:
                error = _NO_MEMORY.format(own)
            if error:
                log_error(self._runtime._logger, error)
                return None
            return new_context(self, self._model, self._runtime._logger, self._machine, gpu, own)

    def __del__(self) -> None:
        if hasattr(self, "_reserved") and not self._machine.closed:
            self._machine.memory[self._gpu].reserved -= self._reserved


class Runtime:
    __slots__ = ("__weakref__", "_logger", "engine_host_code_allowed")

    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, ILogger) or not hasattr(logger, "_constructed"):
            raise TypeError("ILogger.__init__() must be called when overriding __init__")
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        here = machine()
        with here.call("deserialize_cuda_engine") as gpu:
            plan = bytes(memoryview(serialized_engine))
            error, model = here.options.plan_error, None
            if not plan:
                error = _EMPTY
            if not error:
                model = _read_plan(here, plan)
                error = "" if model else _NO_PLAN
            try:
                here.memory[gpu].reserve(0 if error else len(plan))
            except OutOfMemoryError:
                error = _NO_MEMORY.format(len(plan))
            if error or model is None:
                log_error(self._logger, error)
                return None
            engine = ICudaEngine.__new__(ICudaEngine)
            engine._runtime, engine._model, engine._machine = self, model, here
            engine._gpu, engine._reserved = gpu, len(plan)
            return engine


def double_plan(onnx_path: Path, profile: Profile) -> bytes:
    """A plan that the double loads without being told: it holds the ONNX."""
    return _MAGIC + json.dumps(profile).encode() + b"\n" + Path(onnx_path).read_bytes()


def _read_plan(here: Machine, plan: bytes) -> Model | None:
    if registered := here.plans.get(hashlib.sha256(plan).hexdigest()):
        onnx_path, profile = registered
        return Model(onnx_path.read_bytes(), profile)
    if not plan.startswith(_MAGIC):
        return None
    header, _, onnx_bytes = plan.removeprefix(_MAGIC).partition(b"\n")
    profile = {name: tuple(map(tuple, shapes)) for name, shapes in json.loads(header).items()}
    return Model(onnx_bytes, profile)


TENSORRT = {
    value.__name__: value
    for value in (
        DataType,
        ExecutionContextAllocationStrategy,
        ICudaEngine,
        IExecutionContext,
        ILogger,
        Runtime,
        TensorIOMode,
    )
}
"""The names of ``tensorrt``, but for its version."""
