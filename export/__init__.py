"""Checkpoint to artifacts: ONNX files, checked before they are published."""
