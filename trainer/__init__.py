"""Labelled crops to a checkpoint, in PyTorch."""
