"""Several processes that train one network, started by torchrun: each has its share of every batch.

Without torchrun there is one process, and everything here is a plain call. What only one process may do, such as
writing files, the first one does; an error anywhere lets all of them leave, and one of them says why.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.trainer.torch_backend import choose_device

_TIMEOUT = timedelta(hours=4)
"""Longer than the first process evaluates while the others wait; one that has died is noticed at once."""
_UNEXPECTED = 1
_Result = TypeVar("_Result")


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the processes that torchrun started; does nothing where it started none or one.

    Args:
        device: As :func:`own_device` takes it; on GPUs gradients go through NCCL, all else through Gloo.
    """
    if not os.environ.keys() >= {"RANK", "WORLD_SIZE", "MASTER_ADDR"} or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    gpus = device != "cpu" and torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=_TIMEOUT)
    try:
        yield
    except BaseException as error:
        _forget_values(error)
        raise
    finally:
        gc.collect()
        dist.destroy_process_group()


def _forget_values(error: BaseException | None) -> None:
    """Keep an error's lines but not the values in its frames.

    What holds the group, such as DistributedDataParallel, must not outlive it: Gloo's threads would then meet the end
    of the interpreter and abort the process.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def process_count() -> int:
    """How many processes share a batch."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """True in the process that writes and speaks for all."""
    return not dist.is_initialized() or dist.get_rank() == 0


def own_device(device: str) -> torch.device:
    """The device of this process: of several, each has the CPU or a GPU to itself.

    Args:
        device: ``cpu``, ``cuda:N`` or ``auto``; with several processes ``cpu`` or ``auto``.

    Raises:
        InputError: Several processes are to share one GPU.
        UnavailableError: There are more processes than GPUs on this machine.
    """
    chosen = choose_device(device)
    if chosen.type == "cpu":
        return chosen
    if process_count() == 1:
        torch.cuda.set_device(chosen)
        return chosen
    if device != "auto":
        raise InputError(f"with several processes each takes a GPU of its own; leave out --device {device}")
    index, available = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= available:
        raise UnavailableError(
            f"a machine has more processes than GPUs, which are {available}; start torchrun with "
            f"--nproc-per-node {available}, or train with --device cpu"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def own_rows(batch_size: int) -> slice:
    """This process's share of a batch: as many rows as every other, in the order of the processes.

    Raises:
        InputError: The batch cannot be shared equally.
    """
    count = process_count()
    if batch_size % count:
        raise InputError(
            f"a batch of {batch_size} images cannot be shared equally by {count} processes; "
            "change --ids-per-batch, --images-per-id or torchrun's --nproc-per-node"
        )
    share = batch_size // count
    first = dist.get_rank() * share if dist.is_initialized() else 0
    return slice(first, first + share)


def on_first(work: Callable[[], _Result]) -> _Result:
    """Let the first process do some work while the others wait.

    Returns:
        In every process, what the work returned.

    Raises:
        Exception: In the first process, what the work raised.
        SystemExit: In the others, if it raised.
    """
    if not dist.is_initialized():
        return work()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if is_first():
        try:
            outcome[0] = work()
        except Exception as error:
            failure = error
            outcome[1] = _exit_code(error)
    dist.broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        raise SystemExit(outcome[1])
    result: _Result = outcome[0]
    return result


@contextmanager
def together() -> Iterator[None]:
    """Work that each process does for itself; no process goes on unless all can.

    Raises:
        Exception: In the first of the processes that failed, its error.
        SystemExit: In all others, if one failed.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    codes = _all_objects(None if failure is None else _exit_code(failure))
    speaker = next((rank for rank, code in enumerate(codes) if code is not None), None)
    if speaker is None:
        return
    if failure is not None and (not dist.is_initialized() or dist.get_rank() == speaker):
        raise failure
    raise SystemExit(codes[speaker])


def check_equal(value: object, name: str) -> None:
    """Make sure that all processes see the same.

    Raises:
        InputError: They do not.
    """
    if len(set(_all_objects(value))) > 1:
        raise InputError(f"the processes see different {name}; give each machine the same files")


def any_process(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether a process has raised it."""
    if not dist.is_initialized():
        return flags
    raised = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in raised.tolist())


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The mean of all processes' tensors; no gradient. NaN in one process is NaN in all."""
    if not dist.is_initialized():
        return tensor
    mean = tensor.detach().clone()
    dist.all_reduce(mean)
    return mean / dist.get_world_size()


def gather(tensor: Tensor, dim: int) -> Tensor:
    """Join all processes' tensors along an axis, in the order of the processes, with gradient.

    The gradient is that of the sum of all processes' losses, as DistributedDataParallel takes their mean.

    Args:
        tensor: Of the same shape in all processes.
        dim: The axis.
    """
    joined: Tensor = torch.cat(list(_Gather.apply(tensor)), dim)  # type: ignore[no-untyped-call]
    return joined


class _Gather(torch.autograd.Function):
    """(...) in each process to (processes, ...) in all.

    torch.distributed.nn.functional has one too, but on Gloo its way back is a scatter from each process in turn.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        del ctx
        tensor = tensor.contiguous()
        pieces = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(pieces, tensor)
        return torch.stack(pieces)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def _all_objects(value: object) -> list[Any]:
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _exit_code(error: Exception) -> int:
    return error.exit_code if isinstance(error, HamrEdgeError) else _UNEXPECTED
