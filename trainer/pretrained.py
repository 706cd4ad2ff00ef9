"""ImageNet weights for the backbone, by torchvision's key names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.trainer.resnet import ResNet

# torchvision's IMAGENET1K_V1 files; the part after the dash is the start of the file's SHA-256, which is checked.
_IMAGENET_URL = "https://download.pytorch.org/models"
_IMAGENET_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
_SHOWN = 8


def load_pretrained(backbone: ResNet, backbone_name: str, source: str, url: str = _IMAGENET_URL) -> None:
    """Load weights into a backbone.

    Args:
        backbone: Changed in place.
        backbone_name: Like ``resnet50``; names the file to download and stands in messages.
        source: ``imagenet`` (downloaded once, its hash checked) or a ``.pth``, ``.safetensors`` or ``.npz`` file.
        url: Folder that ``imagenet`` is downloaded from.

    Raises:
        InputError: The file is missing, of no known kind, partial, or of another network; the message
            lists what is wrong.
        UnavailableError: The download failed or did not have the right hash.
    """
    if source == "imagenet":
        weights = _download(f"{url}/{_IMAGENET_FILES[backbone_name]}")
    else:
        weights = read_weights(Path(source))
    expected = {key: value for key, value in backbone.state_dict().items() if not key.endswith("num_batches_tracked")}
    absent = [
        f"layer{stage}." for stage in range(1, 5) if not any(key.startswith(f"layer{stage}.") for key in expected)
    ]
    left_out = ("fc.", *absent)
    given = {
        key.removeprefix("module."): value
        for key, value in weights.items()
        if not key.removeprefix("module.").startswith(left_out) and not key.endswith("num_batches_tracked")
    }
    problems = _differences(expected, given)
    if problems:
        raise InputError(
            f"{source} does not hold the weights of {backbone_name}: {'; '.join(problems)}. "
            "Expected torchvision's key names (conv1.weight, layer1.0.conv1.weight, ...)"
        )
    backbone.load_state_dict({key: value.to(torch.float32) for key, value in given.items()}, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a ``.pth``, ``.safetensors`` or ``.npz`` file.

    Raises:
        InputError: The file is missing, of no known kind, or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"weights {path} are not there; pass 'imagenet' or a .pth, .safetensors or .npz file")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: dict[str, Tensor] = load_file(path)
            return loaded
        if path.suffix in (".pth", ".pt"):
            return _named_tensors(torch.load(path, map_location="cpu", weights_only=True), path)
    except InputError:
        raise
    except Exception as error:  # zip, pickle and torch's errors, and a type that safetensors does not export
        raise InputError(f"weights {path} cannot be read: {error}") from error
    raise InputError(f"weights {path} are of no known kind; expected .pth, .safetensors or .npz")


def _named_tensors(loaded: object, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    ):
        raise InputError(f"weights {path} must hold a dict of named tensors, got {type(loaded).__name__}")
    return dict(loaded)


def _download(url: str) -> dict[str, Tensor]:
    try:
        loaded = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise UnavailableError(
            f"{url} could not be downloaded: {error}; download it yourself and pass --pretrained FILE"
        ) from error
    return dict(loaded)


def _differences(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """What keeps ``given`` from being ``expected``, as phrases."""
    missing = [key for key in expected if key not in given]
    unknown = [key for key in given if key not in expected]
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    broken = [
        key
        for key in expected
        if key in given and not (given[key].is_floating_point() and torch.isfinite(given[key]).all())
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("wrong shape", shapes), ("not finite real numbers", broken))
    return [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds if names]


def _some(names: list[str]) -> str:
    more = f", ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
