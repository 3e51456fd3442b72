"""Makes models/testdata/photos-of-fashion: pictures as people take them, from test pictures of Fashion-MNIST.

  make_photos.py DATA_FOLDER

Ten of each class, none of them among the first 500: inverted to dark on light, enlarged to 400 px, tinted, put off-centre on
white or on a soft gradient, saved as JPEG of quality 85. Everything is drawn from a fixed seed.
"""
import json
import os
import struct
import sys

import numpy as np
from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "testdata", "photos-of-fashion")
RNG = np.random.default_rng(85)


def idx(path, header):
    with open(path, "rb") as file:
        data = file.read()
    return np.frombuffer(data[header:], np.uint8)


def photo(pixels):
    big = np.asarray(Image.fromarray(pixels).resize((400, 400), Image.BICUBIC), np.float64) / 255
    # A colour that keeps some darkness: a thing of exactly the background's colour cannot be seen by anybody.
    tint = RNG.uniform(0, 200, 3)
    width, height = int(RNG.integers(560, 800)), int(RNG.integers(480, 640))
    if RNG.random() < 0.5:
        canvas = np.full((height, width, 3), 255.0)
    else:
        corner, other = RNG.uniform(225, 255, 3), RNG.uniform(190, 255, 3)
        angle = RNG.uniform(0, 2 * np.pi)
        x, y = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
        along = np.clip(0.5 + (x * np.cos(angle) + y * np.sin(angle)), 0, 1)[..., None]
        canvas = corner * (1 - along) + other * along
    left, top = int(RNG.integers(0, width - 400 + 1)), int(RNG.integers(0, height - 400 + 1))
    part = canvas[top:top + 400, left:left + 400]
    amount = big[..., None]
    canvas[top:top + 400, left:left + 400] = part * (1 - amount) + np.minimum(part, tint) * amount
    return Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))


def main():
    folder = os.path.join(sys.argv[1], "fashion-mnist")
    images = idx(os.path.join(folder, "t10k-images-idx3-ubyte"), 16).reshape(-1, 28, 28)
    labels = idx(os.path.join(folder, "t10k-labels-idx1-ubyte"), 8)
    assert struct.calcsize(">4I") == 16
    os.makedirs(OUT, exist_ok=True)
    classes, number = {}, 0
    for label in range(10):
        for at in [at for at in range(500, len(labels)) if labels[at] == label][:10]:
            name = f"{number:03}.jpg"
            photo(images[at]).save(os.path.join(OUT, name), "JPEG", quality=85)
            classes[name], number = label, number + 1
    with open(os.path.join(OUT, "labels.json"), "w") as file:
        json.dump(classes, file, indent=0)


main()
