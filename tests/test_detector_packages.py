"""Detection networks of the real packages: their own pictures, their own reading of the outputs, held against ours."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hamr_edge.input_description import parse_input_description
from hamr_edge.letterbox import lay_out_frame
from hamr_edge.onnx_detector import OnnxDetector

_SCORE = 0.011
_SIDE = 320


def _frame() -> np.ndarray:
    blots = np.random.default_rng(0).integers(0, 256, (24, 33, 3), np.uint8)
    return np.asarray(cv2.resize(blots, (501, 333)))


def _outputs(detector: OnnxDetector, path: Path, canvas: np.ndarray) -> list[np.ndarray]:
    """What the network gives of a canvas, with the same arithmetic as in the detector."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    pixels = parse_input_description(detector.format.pixels).prepare(canvas[None])
    return list(session.run(None, {session.get_inputs()[0].name: pixels}))


def _check_same(found: tuple[np.ndarray, np.ndarray], boxes: np.ndarray, scores: np.ndarray) -> None:
    """The same boxes with the same scores, after clipping and without slivers, in any order."""
    boxes = boxes.clip(0, [501, 333, 501, 333])
    whole = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)
    boxes, scores = boxes[whole], scores[whole]
    assert len(found[0]) == len(boxes) > 5
    apart = np.abs(found[0][:, None] - boxes[None]).max(axis=2) + 100 * np.abs(found[1][:, None] - scores[None])
    assert apart.min(axis=0).max() < 0.02
    assert apart.min(axis=1).max() < 0.02


@pytest.mark.parametrize("end2end", [False, True])
def test_ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end2end: bool) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ultralytics = pytest.importorskip("ultralytics", reason="ultralytics is not installed; make integrations does")
        torch = pytest.importorskip("torch")
        from ultralytics.data.augment import LetterBox
        from ultralytics.utils.nms import non_max_suppression
        from ultralytics.utils.ops import scale_boxes

        torch.manual_seed(0)
        model = ultralytics.YOLO("yolov10n.yaml" if end2end else "yolov8n.yaml", task="detect")
        _enliven(model.model)
        path = Path(model.export(format="onnx", imgsz=_SIDE, simplify=False, opset=17, nms=False if end2end else None))
        detector = OnnxDetector(
            path, "yolov8-end2end" if end2end else "yolov8", "cpu", 1, _SCORE, None if end2end else 0.7
        )
        frame = _frame()
        canvas = LetterBox((_SIDE, _SIDE), auto=False)(image=frame)
        np.testing.assert_array_equal(lay_out_frame(frame, (_SIDE, _SIDE), "centred")[0], canvas)
        (output,) = _outputs(detector, path, canvas)
        # Its own NMS, where torchvision has no compiled one.
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)
        kept = non_max_suppression(
            torch.from_numpy(output[:, :5] if not end2end else output), _SCORE, 0.7, classes=[0], max_det=9999
        )[0]
        boxes = scale_boxes(canvas.shape[:2], kept[:, :4], frame.shape[:2]).numpy()
        _check_same(detector.detect(frame), boxes, kept[:, 4].numpy())


def _enliven(network: Any) -> None:
    """Give a network of random weights people of many sizes and scores."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    head = network.model[-1]
    with torch.no_grad():
        # Statistics of such a frame in place of 0 and 1.
        canvas, _ = lay_out_frame(_frame(), (_SIDE, _SIDE), "centred")
        pixels = torch.from_numpy(parse_input_description("rgb-float-unit").prepare(canvas[None]))
        network.train()(pixels + torch.randn(4, 3, _SIDE, _SIDE) * 0.03)
        network.eval()
        for branch in ("", "one2one_"):
            for level in getattr(head, f"{branch}cv3", None) or []:
                level[-1].bias[:] = -20
                level[-1].bias[0] = -4  # people
                level[-1].weight *= 3
            for level in getattr(head, f"{branch}cv2", None) or []:
                level[-1].weight *= 3


@pytest.mark.parametrize("format", ["detr", "rtdetr-hf"])
def test_transformers(tmp_path: Path, format: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("transformers", reason="transformers is not installed; make integrations does")
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        network, processor = _detr() if format == "detr" else _rtdetr()
        path = tmp_path / "model.onnx"
        pixels = torch.zeros(1, 3, _SIDE, _SIDE)
        names = ["logits", "pred_boxes"]
        torch.onnx.export(
            _Outputs(network), (pixels,), path, input_names=["pixel_values"], output_names=names, dynamo=False
        )
        detector = OnnxDetector(path, format, "cpu", 1, _SCORE)
        frame = _frame()
        logits, relative = _outputs(detector, path, lay_out_frame(frame, (_SIDE, _SIDE), "stretch-smooth")[0])
        person = detector.format.person
        if format == "rtdetr-hf":  # its best rows are of box and class: people alone
            logits[..., np.arange(logits.shape[-1]) != person] = -20
        given = type("Given", (), {"logits": torch.from_numpy(logits), "pred_boxes": torch.from_numpy(relative)})
        result = processor.post_process_object_detection(given, threshold=_SCORE, target_sizes=[frame.shape[:2]])[0]
        people = result["labels"].numpy() == person
        boxes, scores = result["boxes"].numpy(), result["scores"].numpy()
        if format == "detr":  # it gives a row to its best class; ours asks for people alone
            found = detector.detect(frame)
            rows = torch.from_numpy(logits).softmax(-1)[0, :, person].numpy() >= _SCORE
            assert len(found[0]) == rows.sum()
            best = np.isin(found[1].round(5), scores[people].round(5))
            _check_same((found[0][best], found[1][best]), boxes[people], scores[people])
        else:
            _check_same(detector.detect(frame), boxes[people], scores[people])


def _detr() -> tuple[Any, Any]:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
    from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=_backbone(ResNetConfig, ["stage4"]),
        encoder_layers=1,
        decoder_layers=1,
        d_model=64,
        num_queries=60,
        num_labels=4,
        **_narrow(),
    )
    network = DetrForObjectDetection(config).eval()
    network.model.query_position_embeddings.weight.data.mul_(50)  # so that no two queries have one box
    return network, DetrImageProcessorPil()


def _rtdetr() -> tuple[Any, Any]:
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    config = RTDetrConfig(
        backbone_config=_backbone(RTDetrResNetConfig, ["stage2", "stage3", "stage4"]),
        encoder_in_channels=[32, 48, 64],
        encoder_hidden_dim=64,
        d_model=64,
        num_queries=100,
        decoder_in_channels=[64, 64, 64],
        decoder_layers=1,
        num_labels=4,
        **_narrow(),
    )
    return RTDetrForObjectDetection(config).eval(), RTDetrImageProcessorPil()


def _backbone(kind: Any, features: list[str]) -> Any:
    return kind(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1] * 4, layer_type="basic", out_features=features
    )


def _narrow() -> dict[str, int]:
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, **heads}


def _Outputs(network: Any) -> Any:  # noqa: N802
    """The network as a module that gives its two outputs."""
    import torch

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixel_values: Any) -> tuple[Any, Any]:
            found = self.network(pixel_values=pixel_values)
            return found.logits, found.pred_boxes

    return Outputs()
