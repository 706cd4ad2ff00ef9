"""What detection networks take and give: one record a declared format, each from its authors' own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hamr_edge import detector_decoders as read
from hamr_edge.errors import InputError
from hamr_edge.letterbox import Fit


@dataclass(frozen=True, slots=True)
class OutputForm:
    """One output of a network."""

    shape: tuple[int | str, ...]
    """Sizes: a number; ``N`` for any; ``anchors``, the boxes of all levels; ``classes+4`` for at least 5."""
    names: tuple[str, ...] = ()
    """What it may be called; any name where a network has no other output."""

    def fits(self, shape: Sequence[Any], anchor_counts: Sequence[int]) -> bool:
        """Whether a shape can be this output's; sizes that are no numbers are free.

        Args:
            shape: Of the output of a file, or of an array.
            anchor_counts: What ``anchors`` may be.
        """
        return len(shape) == len(self.shape) and all(
            not isinstance(size, int) or _size_fits(size, want, anchor_counts)
            for size, want in zip(shape, self.shape, strict=True)
        )

    def words(self, anchor_counts: Sequence[int]) -> str:
        """The shape as messages show it, a chosen name before it."""
        counts = " or ".join(str(count) for count in anchor_counts)
        sizes = ", ".join(counts if size == "anchors" and counts else str(size) for size in self.shape)
        return f"{'|'.join(self.names) or 'one output'} ({sizes})"


@dataclass(frozen=True, slots=True)
class DetectorFormat:
    """A kind of detection network: its input, its outputs and how boxes are read from them."""

    name: str
    source: str
    """Whose networks, by which paper and code."""
    pixels: str
    """The input's order of colours and range, in the words of :mod:`hamr_edge.input_description`."""
    fit: Fit
    outputs: tuple[OutputForm, ...]
    read_scores: Callable[[read.Outputs, Sequence[int]], read.Scores]
    read_boxes: Callable[[read.Outputs, read.Rows, tuple[int, int]], read.Boxes]
    default_min_score: float
    """What the authors' own demonstration uses; of YOLOX 0.4, where theirs has 0.3."""
    person: int = 0
    suppress: bool = True
    """Whether boxes of one person must be thinned out."""
    size_hw: tuple[int, int] | None = (640, 640)
    """The input's size where a file leaves it free; None: DETR's short side of 800 pixels."""
    multiple: int = 1
    """Height and width are multiples of it."""
    strides: tuple[tuple[int, ...], ...] = ()
    """Which levels of cells such networks come with."""
    boxes_per_cell: int = 1
    needs_size: bool = False
    """It takes the canvas's width and height as a second input, ``orig_target_sizes``."""
    of_ultralytics: bool = False

    def anchor_counts(self, size_hw: tuple[int, int] | None) -> list[int]:
        """How many rows the cells of all levels make, for each kind of levels."""
        if size_hw is None:
            return []
        return [
            self.boxes_per_cell * sum(-(-size_hw[0] // stride) * -(-size_hw[1] // stride) for stride in kind)
            for kind in self.strides
        ]


_YOLO_LEVELS = (8, 16, 32)
_NANODET_PIXELS = "bgr-float-imagenet"  # 103.53, 116.28, 123.675 and 57.375, 57.12, 58.395: ImageNet's, times 255
_MEGVII = "YOLOX (Ge et al., 2021, arXiv:2107.08430; Megvii-BaseDetection/YOLOX, tools/export_onnx.py"
_NANODET = "RangiLyu/nanodet, tools/export_onnx.py"
_RTDETR = "RT-DETR (Zhao et al., CVPR 2024)"
_OBJECTNESS_TABLE = (OutputForm((1, "anchors", "classes+5")),)
_NANODET_TABLE = (OutputForm((1, "anchors", f"classes+{4 * read.DISTRIBUTION_BINS}")),)
_LISTED = (OutputForm((1, "N", 6)),)
_LOGITS = OutputForm((1, "N", "classes+0"), ("logits", "pred_logits"))
_RELATIVE = OutputForm((1, "N", 4), ("pred_boxes",))

_FORMATS = (
    DetectorFormat(
        "yolox",
        f"{_MEGVII} as it comes)",
        "bgr-float-255",
        "top-left",
        _OBJECTNESS_TABLE,
        read.read_yolox_scores,
        read.read_yolox_boxes,
        0.4,
        multiple=32,
        strides=(_YOLO_LEVELS,),
    ),
    DetectorFormat(
        "yolox-decoded",
        f"{_MEGVII} --decode_in_inference)",
        "bgr-float-255",
        "top-left",
        _OBJECTNESS_TABLE,
        read.read_yolox_scores,
        read.read_yolox_decoded_boxes,
        0.4,
        multiple=32,
        strides=(_YOLO_LEVELS, (8, 16, 32, 64)),
    ),
    DetectorFormat(
        "yolov5",
        "YOLOv5 (ultralytics/yolov5 v7.0) and YOLOv7 (WongKinYiu/yolov7), export.py, the latter's with --grid alone",
        "rgb-float-unit",
        "centred",
        _OBJECTNESS_TABLE,
        read.read_yolox_scores,
        read.read_yolov5_boxes,
        0.25,
        multiple=32,
        strides=(_YOLO_LEVELS, (8, 16, 32, 64)),
        boxes_per_cell=3,
    ),
    DetectorFormat(
        "yolov8",
        "YOLOv8, v9, 11, 12 and others with that head (ultralytics, 'yolo export format=onnx')",
        "rgb-float-unit",
        "centred",
        (OutputForm((1, "classes+4", "anchors")),),
        read.read_yolov8_scores,
        read.read_yolov8_boxes,
        0.25,
        multiple=32,
        strides=(_YOLO_LEVELS, (4, 8, 16, 32), (8, 16, 32, 64)),
        of_ultralytics=True,
    ),
    DetectorFormat(
        "yolov8-end2end",
        "the same with NMS inside or without need of it (ultralytics: nms=True, YOLOv10, YOLO26)",
        "rgb-float-unit",
        "centred",
        _LISTED,
        read.read_listed_scores,
        read.read_listed_boxes,
        0.25,
        suppress=False,
        multiple=32,
        of_ultralytics=True,
    ),
    DetectorFormat(
        "nanodet",
        f"NanoDet-Plus (Lyu, 2021; {_NANODET}), keep_ratio: False, as in all configs but that for one's own data",
        _NANODET_PIXELS,
        "warp",
        _NANODET_TABLE,
        read.read_nanodet_scores,
        read.read_nanodet_boxes,
        0.35,
        size_hw=(416, 416),
        multiple=32,
        strides=((8, 16, 32, 64),),
    ),
    DetectorFormat(
        "nanodet-keep-ratio",
        f"NanoDet-Plus ({_NANODET}), keep_ratio: True, as in config/nanodet_custom_xml_dataset.yml",
        _NANODET_PIXELS,
        "warp-centred",
        _NANODET_TABLE,
        read.read_nanodet_scores,
        read.read_nanodet_boxes,
        0.35,
        size_hw=(320, 320),
        multiple=32,
        strides=((8, 16, 32, 64),),
    ),
    DetectorFormat(
        "nanodet-legacy",
        # Of the others, nanodet-g, RepVGG-A0 and EfficientNet-Lite1 and 2 have 11 bins, EfficientNet-Lite other pixels.
        f"NanoDet before Plus (Lyu, 2020; {_NANODET}): nanodet-m... and nanodet-t of config/legacy_v0.x_configs",
        _NANODET_PIXELS,
        "warp-centred",
        _NANODET_TABLE,
        read.read_nanodet_scores,
        read.read_nanodet_legacy_boxes,
        0.35,
        size_hw=(320, 320),
        multiple=32,
        strides=(_YOLO_LEVELS,),
    ),
    DetectorFormat(
        "rtdetr",
        f"{_RTDETR} of lyuwenyu/RT-DETR, tools/export_onnx.py",
        "rgb-float-unit",
        "stretch-smooth",
        (OutputForm((1, "N"), ("labels",)), OutputForm((1, "N", 4), ("boxes",)), OutputForm((1, "N"), ("scores",))),
        read.read_labelled_scores,
        read.read_labelled_boxes,
        0.6,
        suppress=False,
        needs_size=True,
    ),
    DetectorFormat(
        "rtdetr-hf",
        f"{_RTDETR} of transformers, RTDetrForObjectDetection",
        "rgb-float-unit",
        "stretch-smooth",
        (_LOGITS, _RELATIVE),
        read.read_sigmoid_scores,
        read.read_relative_boxes,
        0.5,
        suppress=False,
    ),
    DetectorFormat(
        "rtdetr-ultralytics",
        f"{_RTDETR} of ultralytics, a row its box, best score and class (8.4.60 and later)",
        "rgb-float-unit",
        "stretch",
        _LISTED,
        read.read_listed_scores,
        read.read_relative_table_boxes,
        0.25,
        suppress=False,
        of_ultralytics=True,
    ),
    DetectorFormat(
        "rtdetr-ultralytics-scores",
        f"{_RTDETR} of ultralytics, a row its box and the scores of all classes (8.3, 8.4.0)",
        "rgb-float-unit",
        "stretch",
        (OutputForm((1, "N", "classes+4")),),
        read.read_relative_table_scores,
        read.read_relative_table_boxes,
        0.25,
        suppress=False,
        of_ultralytics=True,
    ),
    DetectorFormat(
        "detr",
        "DETR (Carion et al., ECCV 2020) of transformers, DetrForObjectDetection",
        "rgb-float-imagenet",
        "stretch-smooth",
        (_LOGITS, _RELATIVE),
        read.read_softmax_scores,
        read.read_relative_boxes,
        0.7,
        person=1,
        suppress=False,
        size_hw=None,
    ),
)
FORMATS = {form.name: form for form in _FORMATS}
"""By name; none is ever guessed from a file."""


def find_format(name: str) -> DetectorFormat:
    """The format of a name.

    Raises:
        InputError: There is none.
    """
    if name not in FORMATS:
        raise InputError(f"detector format {name!r} is unknown; expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _size_fits(size: int, want: int | str, anchor_counts: Sequence[int]) -> bool:
    if isinstance(want, int):
        return size == want
    if want == "anchors":
        return size in anchor_counts or not anchor_counts
    return want == "N" or size > int(want.removeprefix("classes+"))
