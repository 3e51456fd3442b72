"""The data sets' idx files as arrays."""

import struct
from pathlib import Path

import numpy as np

EDGE = 28


def read(folder, data_set, part):
    """(u8 [n, 28, 28], i32 [n]) of `part`, "train" or "t10k", of "fashion-mnist" or "mnist" below `folder`."""
    base = Path(folder) / data_set
    images = (base / f"{part}-images-idx3-ubyte").read_bytes()
    labels = (base / f"{part}-labels-idx1-ubyte").read_bytes()
    magic, count, height, width = struct.unpack(">IIII", images[:16])
    if (magic, height, width) != (0x803, EDGE, EDGE) or struct.unpack(">II", labels[:8]) != (0x801, count):
        raise SystemExit(f"{base}: the {part} files are not 28x28 pictures with as many labels")
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(count, EDGE, EDGE)
    return pixels, np.frombuffer(labels, np.uint8, offset=8).astype(np.int32)
