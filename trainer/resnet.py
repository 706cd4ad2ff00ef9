"""ResNet backbones that return the feature map of every stage (He et al., CVPR 2016).

Key names are torchvision's, so ImageNet weights load without renaming.
"""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS: dict[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
_BASIC = ("resnet18", "resnet34")


def stage_strides(last_stride: int) -> tuple[int, int, int, int]:
    """Pixels of the input that a step in each stage's map covers, where the last stage strides by ``last_stride``."""
    return (4, 8, 16, 16 * last_stride)


def stage_channels(backbone: str) -> tuple[int, int, int, int]:
    """Channels of the four stages' maps."""
    return (64, 128, 256, 512) if backbone in _BASIC else (256, 512, 1024, 2048)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, stride_in_1x1: bool) -> None:
        super().__init__()
        del stride_in_1x1  # a basic block has no 1x1 convolution on its main path
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels * expansion, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        out += shortcut
        added: Tensor = self.relu(out)
        return added


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (ResNet-50 and deeper).

    torchvision strides in the 3x3 convolution; the original (Caffe, MSRA) weights were trained with the stride in the
    first 1x1, which ``stride_in_1x1`` asks for.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, stride_in_1x1: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels * expansion, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        out += shortcut
        added: Tensor = self.relu(out)
        return added


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """The convolutional part of a ResNet.

    Args:
        backbone: One of ``BLOCKS``.
        stride_in_1x1: Where a bottleneck strides; see :class:`Bottleneck`.
        last_stride: Stride of stage 4: 1 keeps its map at 1/16 of the image (paper, section 4.1); 2 is ImageNet's.
        depth: Stages to build, 1 to 4.
    """

    def __init__(
        self, backbone: str = "resnet50", stride_in_1x1: bool = False, last_stride: int = 1, depth: int = 4
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        block = BasicBlock if backbone in _BASIC else Bottleneck
        counts = BLOCKS[backbone]
        self._in_channels = 64
        self._depth = depth
        for stage, stride in enumerate((1, 2, 2, last_stride)[:depth]):
            self.add_module(f"layer{stage + 1}", self._stage(block, 64 << stage, counts[stage], stride, stride_in_1x1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(
        self, block: type[BasicBlock] | type[Bottleneck], channels: int, count: int, stride: int, stride_in_1x1: bool
    ) -> nn.Sequential:
        blocks: list[nn.Module] = []
        for index in range(count):
            blocks.append(block(self._in_channels, channels, stride if index == 0 else 1, stride_in_1x1))
            self._in_channels = channels * block.expansion
        return nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) float images to the maps of the stages that are built; see :func:`stage_strides`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for stage in range(1, self._depth + 1):
            x = getattr(self, f"layer{stage}")(x)
            maps.append(x)
        return maps
