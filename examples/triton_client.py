"""Embeddings from a Triton server: crops are cut here, the network runs there.

hamr-edge export RUN -o build --preset triton
tritonserver --model-repository=build/triton  # in NVIDIA's container, port 8001 published
pip install hamr-edge "tritonclient[grpc]"
python examples/triton_client.py photo.jpg --boxes 10,20,60,180 --boxes 100,20,150,190 --name model_fp32
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import tritonclient.grpc as triton

from hamr_edge.preprocess import crop_boxes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--boxes", action="append", required=True, help="x1,y1,x2,y2; can be given again")
    parser.add_argument("--name", required=True, help="the model's")
    parser.add_argument("--server", default="localhost:8001")
    options = parser.parse_args()
    client = triton.InferenceServerClient(options.server)
    config = client.get_model_config(options.name).config
    height, width = config.input[0].dims[:2]
    boxes = [[float(value) for value in box.split(",")] for box in options.boxes]
    crops = crop_boxes(cv2.imread(options.image), boxes, (height, width))
    rows = []
    for start in range(0, len(crops), config.max_batch_size):  # the server refuses more in one request
        batch = crops[start : start + config.max_batch_size]
        images = triton.InferInput("images", list(batch.shape), "UINT8")
        images.set_data_from_numpy(batch)
        rows.append(client.infer(options.name, [images]).as_numpy("embeddings"))
    embeddings = np.concatenate(rows)
    print(np.round(embeddings @ embeddings.T, 4))


if __name__ == "__main__":
    main()
