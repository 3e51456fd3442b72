"""Writes the vectors that an embedding model must give, by a path that shares nothing with Outboard's.

  embedding_golden.py MODEL_FOLDER >golden.json        (requirements: numpy, onnxruntime, tokenizers)

Each text runs alone, without filling, through the Python packages onnxruntime and tokenizers; mean and length are taken in numpy
in f64. `alike` names triples of texts: the first two mean nearly the same, the third does not.
"""

import json
import os
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

TEXTS = [
    "A man is eating food.",
    "Somebody is having a meal.",
    "The stock market fell sharply on Monday.",
    "How do I reset my password?",
    "I forgot my login and cannot get into my account.",
    "The recipe needs two eggs and a cup of flour.",
    "A cat sleeps on the warm window sill.",
    "The kitten is napping in the sun by the window.",
    "Shares lost much of their value at the beginning of the week.",
    "na\u00efve Caf\u00e9 \u2014 \u4f60\u597d, \u4e16\u754c! \U0001f600 \u00bfqu\u00e9 tal?",
    "  spaces,\ttabs\nand\r\nlines  ",
    "x",
    "Outboard serves models. " * 40,
]
ALIKE = [[0, 1, 2], [1, 0, 5], [2, 8, 6], [3, 4, 7], [6, 7, 3], [8, 2, 4]]
MOST = 256


def main():
    (folder,) = sys.argv[1:]
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    session = onnxruntime.InferenceSession(os.path.join(folder, "1", "model.onnx"))
    entries, vectors = [], []
    for text in TEXTS:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        assert ids.size <= MOST, text
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        vector = session.run(["last_hidden_state"], feed)[0][0].astype(np.float64).mean(0)
        vectors.append(vector / np.linalg.norm(vector))
        entries.append({"text": text, "tokens": int(ids.size), "vector": [round(float(value), 4) for value in vectors[-1]]})
    for near, nearer, far in ALIKE:
        print(f"{vectors[near] @ vectors[nearer]:.2f} {vectors[near] @ vectors[far]:.2f}  {TEXTS[near]}", file=sys.stderr)
    print('{"texts": [\n' + ",\n".join(json.dumps(entry) for entry in entries) + f'\n],\n"alike": {ALIKE}}}')


main()
