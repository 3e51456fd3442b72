"""Writes what the reference says of the 500 test pictures of each set: models/testdata/*-500.golden.json.

Needs numpy, onnxruntime and Pillow. The pictures go through `preprocess.row`, so the file holds whatever the server should
answer, pre-processing included.
"""
import json
import os

import numpy as np
import onnxruntime
from PIL import Image

import preprocess

MODELS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TESTDATA = os.path.join(MODELS, "testdata")
MARGIN = {"fashion-mnist": 0.0, "mnist": 0.2}


def softmax(logits):
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def session(name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(os.path.join(MODELS, name, "1", "model.onnx"), options,
                                        providers=["CPUExecutionProvider"])


def scores(name, images):
    rows = np.stack([preprocess.row(image, MARGIN[name]) for image in images])[:, None]
    return softmax(session(name).run(["logits"], {"image": rows})[0])


def main():
    for name in MARGIN:
        sheet = Image.open(os.path.join(TESTDATA, f"{name}-500.png"))
        tiles = [sheet.crop((x * 28, y * 28, x * 28 + 28, y * 28 + 28)) for y in range(20) for x in range(25)]
        answers = scores(name, tiles)
        labels = [int(c) for c in open(os.path.join(TESTDATA, f"{name}-500.labels.txt")).read() if c.isdigit()]
        print(name, "right:", int((answers.argmax(1) == labels).sum()), "of", len(labels))
        rows = ",\n".join("  " + json.dumps([round(float(score), 6) for score in row]) for row in answers)
        with open(os.path.join(TESTDATA, f"{name}-500.golden.json"), "w") as file:
            file.write(f'{{"model": "{name}", "scores": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
