"""fp32 ONNX to int8 ONNX: which crops are run, what values they make, where each tensor is clipped, and the Q/DQ."""
