"""Makes golden.json: greedy answers of the bundled chat model, worked out from its GGUF file in numpy alone.

  python make.py GGUF FOLDER        (requirements: ../../../../models/import/requirements-quality.txt)

GGUF: SmolLM2-135M-Instruct.Q4_1.gguf of the package that models/import/run fetches. FOLDER: what it makes, for the tokeniser.
Nothing here is shared with what writes or runs the graph but the reading of the file: rotation is by pairs side by side, as the
file has them, all keys and values are kept in one array, and there is no batch.
"""

import json
import os
import sys

import numpy as np
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
IMPORT = os.path.join(HERE, "../../../../models/import")
sys.path.insert(0, IMPORT)
import llama_gguf  # noqa: E402

ANSWER = 48
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
# Another token than the likeliest must be farther away than any rounding.
CLEAR = 2e-3


class Llama:
    def __init__(self, path):
        self.file = llama_gguf.File(path)
        need = self.file.need
        self.layers, self.heads = need("llama.block_count"), need("llama.attention.head_count")
        self.kv_heads, self.epsilon = need("llama.attention.head_count_kv"), need("llama.attention.layer_norm_rms_epsilon")
        self.size = need("llama.embedding_length") // self.heads
        self.frequencies = need("llama.rope.freq_base") ** -(np.arange(0, self.size, 2) / self.size)
        self.weights = {name: self.file.tensor(name) for name in self.file.tensors}
        self.keys = self.values = None

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon) * self.weights[name]

    def rotate(self, x, positions):
        """x: [tokens, heads, size]; the pairs are neighbours."""
        angles = positions[:, None] * self.frequencies
        cos, sin = (f(angles).astype(np.float32)[:, None] for f in (np.cos, np.sin))
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)

    def forward(self, tokens, past):
        """Logits after the last of `tokens`, which follow `past` others."""
        if past == 0:
            empty = np.zeros((0, self.kv_heads, self.size), np.float32)
            self.keys, self.values = [empty] * self.layers, [empty] * self.layers
        count = len(tokens)
        positions = np.arange(past, past + count)
        later = np.arange(past + count)[None] > positions[:, None]
        x = self.weights["token_embd.weight"][tokens]
        for layer in range(self.layers):
            weight = lambda name: self.weights[f"blk.{layer}.{name}.weight"]  # noqa: B023, E731
            normed = self.norm(x, f"blk.{layer}.attn_norm.weight")
            q, k, v = ((normed @ weight(f"attn_{part}").T).reshape(count, -1, self.size) for part in "qkv")
            self.keys[layer] = np.concatenate([self.keys[layer], self.rotate(k, positions)])
            self.values[layer] = np.concatenate([self.values[layer], v])
            shared = self.heads // self.kv_heads
            keys, values = (np.repeat(cache[layer], shared, axis=1) for cache in (self.keys, self.values))
            scores = np.einsum("qhd,khd->hqk", self.rotate(q, positions), keys) / np.sqrt(np.float32(self.size))
            scores[:, later] = -np.inf
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            attended = np.einsum("hqk,khd->qhd", scores / scores.sum(axis=-1, keepdims=True), values)
            x = x + attended.reshape(count, -1) @ weight("attn_output").T
            normed = self.norm(x, f"blk.{layer}.ffn_norm.weight")
            gate = normed @ weight("ffn_gate").T
            x = x + (gate / (1 + np.exp(-gate)) * (normed @ weight("ffn_up").T)) @ weight("ffn_down").T
        return self.norm(x[-1], "output_norm.weight") @ self.weights["token_embd.weight"].T


def main():
    model, tokenizer = Llama(sys.argv[1]), Tokenizer.from_file(os.path.join(sys.argv[2], "tokenizer.json"))
    end = model.file.need("tokenizer.ggml.eos_token_id")
    with open(os.path.join(IMPORT, "quality/prose.txt"), encoding="utf-8") as file:
        prose = file.read()

    def asked(*turns, system=SYSTEM):
        roles = ["system", *(("user", "assistant")[at % 2] for at in range(len(turns)))]
        told = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in zip(roles, (system, *turns)))
        return told + "<|im_start|>assistant\n"

    prompts = [
        asked("What is the capital of France?"),
        asked("Write a short story about a ship whose engine is outside."),
        asked("How do I boil an egg?"),
        asked("Name three fruits.", "1. Apples\n2. Oranges\n3. Bananas", "And three vegetables?"),
        asked("Explain in two sentences why leaves fall in autumn.", system="You answer like a pirate."),
        asked("Was machen wir heute? 🚢 Zażółć gęślą jaźń"),
        asked(f"Summarise this.\n\n{prose[:2400]}"),
        prose[:1000],
        "def fibonacci(n):\n    ",
        "Once upon a time",
    ]
    golden = []
    for prompt in prompts:
        tokens = tokenizer.encode(prompt, add_special_tokens=False).ids
        told, new, past, gaps = [], tokens, 0, []
        while len(told) < ANSWER and told[-1:] != [end]:
            logits = model.forward(new, past)
            past += len(new)
            second, first = np.sort(logits)[-2:]
            gaps.append(float(first - second))
            new = [int(logits.argmax())]
            told += new
        print(len(tokens), len(told), f"{min(gaps):.4f}", repr(tokenizer.decode(told)), flush=True)
        if min(gaps) < CLEAR:
            sys.exit(f"the choice is too close in {prompt!r}: take another prompt")
        golden.append({"prompt": prompt, "tokens": tokens, "answer": told, "text": tokenizer.decode(told),
                       "smallest_gap": round(min(gaps), 5)})
    with open(os.path.join(HERE, "golden.json"), "w", encoding="utf-8") as out:
        out.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in golden) + "\n]\n")


if __name__ == "__main__":
    main()
