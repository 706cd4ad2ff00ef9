"""fp32 ONNX to int8 ONNX. Nothing is here yet."""
