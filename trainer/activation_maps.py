"""Where a network's activations are strong (paper, figure 8): the energy of a feature map over the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hamr_edge.dataset import read_crop
from hamr_edge.preprocess import stack_crops
from hamr_edge.trainer.augment import normalise
from hamr_edge.trainer.network import Hamr
from hamr_edge.trainer.resnet import stage_channels

MapSource = Literal["attended", "backbone", "fused"]
_BATCH = 16


def activation_maps(network: Hamr, paths: Sequence[Path], source: MapSource = "attended") -> NDArray[np.float32]:
    """The energy of a feature map at each of its positions: squares of the activations, summed over channels.

    This is the map of Zagoruyko and Komodakis (attention transfer, ICLR 2017), which torchreid draws too. Each is
    divided by its mean, so maps of other networks, other sizes and other channel counts share one scale.

    Args:
        network: In evaluation mode, on its device.
        paths: Image files, each a whole crop.
        source: ``attended``: the last fused stage (4 in the paper's network) as the heads get it, attention included;
            ``backbone``: the same stage before any attention; ``fused``: all fused stages as the heads get them.

    Returns:
        (N, h, w) float32, at least 0, each of mean 1; all 0 where the network is silent.

    Raises:
        InputError: An image is missing or cannot be decoded.
    """
    config = network.config
    device = next(network.parameters()).device
    channels = stage_channels(config.backbone)[config.stages[-1] - 1]
    maps = []
    for start in range(0, len(paths), _BATCH):
        crops = stack_crops([read_crop(path) for path in paths[start : start + _BATCH]], config.input_size_hw)
        with torch.inference_mode():
            images = normalise(torch.from_numpy(crops).to(device))
            features = network.backbone(images)[-1] if source == "backbone" else network.fuse(images)
            if source == "attended":
                features = features[:, -channels:]  # stages are concatenated in ascending order
            energy = features.float().square().sum(1)
            energy /= energy.mean((1, 2), keepdim=True).clamp_min(1e-12)
        maps.append(energy.cpu().numpy())
    return np.concatenate(maps)
