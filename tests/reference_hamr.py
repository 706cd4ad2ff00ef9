"""The paper's text, written out part by part, slowly: what the vectorised network must equal.

Only the ResNet is the package's: pooling, attention, windows, heads and losses are spelled out anew.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamr_edge.trainer.network import Hamr


class ReferencePart(nn.Module):
    """Section 3.4 for one part: two pools, 1x1 convolution, BN, ReLU, FC, BN, FC."""

    def __init__(self, pooled: int, pooling: str, reduced: int, width: int, classes: int) -> None:
        super().__init__()
        self.pools = ("max", "avg") if pooling == "both" else (pooling,)
        self.conv = nn.Conv2d(pooled, reduced, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(reduced)
        self.fc = nn.Linear(reduced, width, bias=False)
        self.bn2 = nn.BatchNorm1d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pools = {"max": F.adaptive_max_pool2d(window, 1), "avg": F.adaptive_avg_pool2d(window, 1)}
        pooled = torch.cat([pools[name] for name in self.pools], dim=1)
        descriptor = F.relu(self.bn1(self.conv(pooled))).flatten(1)
        triplet = self.fc(descriptor)
        embedding = self.bn2(triplet)
        return triplet, embedding, self.classifier(embedding)


class ReferenceHamr(nn.Module):
    """The whole network with one module a part, its weights copied from a vectorised one."""

    def __init__(self, network: Hamr) -> None:
        super().__init__()
        self.source = network
        self.stripes = network.config.stripes
        heads = network.heads
        parts, pooled, reduced = heads.reduce.shape
        width, classes = heads.classify.shape[1:]
        pooling = network.config.pooling
        self.parts = nn.ModuleList(ReferencePart(pooled, pooling, reduced, width, classes) for _ in range(parts))
        self.parts.to(heads.reduce.dtype)  # before copying: float32 would round
        with torch.no_grad():
            for index, part in enumerate(self.parts):
                part.conv.weight.copy_(heads.reduce[index].t()[:, :, None, None])
                part.fc.weight.copy_(heads.project[index].t())
                part.classifier.weight.copy_(heads.classify[index].t())
                part.classifier.bias.copy_(heads.classify_bias[index, 0])
                for bn, joined, size in ((part.bn1, heads.reduce_bn, reduced), (part.bn2, heads.project_bn, width)):
                    rows = slice(index * size, (index + 1) * size)
                    for name in ("weight", "bias", "running_mean", "running_var"):
                        getattr(bn, name).copy_(getattr(joined, name)[rows])

    def fused(self, images: Tensor) -> Tensor:
        config, backbone = self.source.config, self.source.backbone
        x = backbone.maxpool(F.relu(backbone.bn1(backbone.conv1(images))))
        maps: list[Tensor] = []
        for stage in range(1, config.stages[-1] + 1):
            x = getattr(backbone, f"layer{stage}")(x)
            if stage in config.stages:
                size = (config.input_size_hw[0] // config.map_stride, config.input_size_hw[1] // config.map_stride)
                maps.append(F.adaptive_max_pool2d(x, size))
        concatenated = False
        for step in config.attention.split("+"):
            if step == "cat":
                maps, concatenated = [torch.cat(maps, dim=1)], True
            elif step == "s":
                maps = [
                    spatial(features, own.conv.weight) for features, own in zip(maps, self.source.spatial, strict=True)
                ]
            else:
                own = [self.source.channel] if concatenated else self.source.stage_channel
                maps = [channel(features, one.mlp) for features, one in zip(maps, own, strict=True)]
        return maps[0]

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        features = self.fused(images)
        stripe = features.shape[2] // self.stripes
        outputs = []
        part = iter(self.parts)
        for level in range(1, self.stripes + 1):  # equation 3: level p holds p windows of K - p + 1 stripes
            if self.source.config.partition == "pcb" and level < self.stripes:
                continue
            size = self.stripes - level + 1
            for first in range(level):
                outputs.append(next(part)(features[:, :, first * stripe : (first + size) * stripe]))
        triplets, embeddings, logits = zip(*outputs, strict=True)
        return list(triplets), list(embeddings), list(logits)


def spatial(features: Tensor, weight: Tensor) -> Tensor:
    """Equation 1."""
    mean = torch.mean(features, dim=1, keepdim=True)
    maximum = torch.max(features, dim=1, keepdim=True).values
    return features * torch.sigmoid(F.conv2d(torch.cat([mean, maximum], 1), weight, padding=weight.shape[2] // 2))


def channel(features: Tensor, mlp: nn.Sequential) -> Tensor:
    """Equation 2."""
    first, _, second = mlp
    pools = F.adaptive_avg_pool2d(features, 1).flatten(1) + F.adaptive_max_pool2d(features, 1).flatten(1)
    hidden = F.relu(F.linear(pools, first.weight, first.bias))
    gates = torch.sigmoid(F.linear(hidden, second.weight, second.bias))
    return features * gates[:, :, None, None]


def reference_loss(
    triplets: list[Tensor], logits: list[Tensor], labels: Tensor, stripes: int, margin: float, smoothing: float
) -> Tensor:
    """Equation 4: the mean of the N ID losses and the mean of the M triplet losses, image by image."""
    identity = []
    for part in logits:
        log_probability = torch.log_softmax(part, dim=1)
        classes = part.shape[1]
        target = torch.full_like(part, smoothing / classes)
        target[torch.arange(len(labels)), labels] += 1 - smoothing
        identity.append(-(target * log_probability).sum(1).mean())
    triplet = []
    place = 0
    for level in range(1, stripes + 1):
        features = torch.cat(triplets[place : place + level], dim=1)
        place += level
        hinges = []
        for anchor in range(len(labels)):
            distances = [torch.linalg.vector_norm(features[anchor] - other) for other in features]
            positives = [d for i, d in enumerate(distances) if labels[i] == labels[anchor] and i != anchor]
            negatives = [d for i, d in enumerate(distances) if labels[i] != labels[anchor]]
            hinges.append(torch.relu(torch.stack(positives).max() - torch.stack(negatives).min() + margin))
        triplet.append(torch.stack(hinges).mean())
    return torch.stack(identity).mean() + torch.stack(triplet).mean()
