"""Makes the tiny language models of this folder, and the answers that they must give.

  python make.py        (requirements: ../../../models/import/requirements.txt, onnxruntime, tokenizers)

The weights are random and always the same. The golden tokens come from the graph run alone in ONNX Runtime, with a past that
grows by copying, which is not how Outboard runs it.
"""

import json
import os
import shutil
import sys

import numpy as np
import onnxruntime
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../models/import"))
import decoder_graph  # noqa: E402

TEXT = """A ship that carries its engine outside is easily repaired. The engine turns, the ship moves, and whoever sits at the
wheel need not know how. Ask it a question, and it answers word by word; ask it another, and it goes on where it was."""
SPECIALS = ["<|end|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
VOCABULARY = 384


def tokenizer(folder):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    made.train_from_iterator([TEXT], trainer)
    made.add_special_tokens([AddedToken(special, normalized=False) for special in SPECIALS])
    assert made.get_vocab_size() <= VOCABULARY, made.get_vocab_size()
    made.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    config = {"bos_token": None, "eos_token": SPECIALS[2], "chat_template": TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as out:
        json.dump(config, out, indent=1)
    return made


def weights(shape, seed, tied, biases):
    random = np.random.default_rng(seed)

    def matrix(rows, columns):
        return (random.standard_normal((rows, columns)) * 1.2 / np.sqrt(columns)).astype(np.float32)

    inside, kv, wide = shape.heads * shape.head_size, shape.kv_heads * shape.head_size, 2 * shape.width
    made = {"embedding": matrix(shape.vocabulary, shape.width) * np.float32(0.5 if tied else 4), "norm": np.ones(shape.width, np.float32)}
    if not tied:
        made["head"] = matrix(shape.vocabulary, shape.width) * np.float32(3)
    for layer in range(shape.layers):
        sizes = {"q": (inside, shape.width), "k": (kv, shape.width), "v": (kv, shape.width), "o": (shape.width, inside),
                 "gate": (wide, shape.width), "up": (wide, shape.width), "down": (shape.width, wide)}
        for name, (rows, columns) in sizes.items():
            made[f"{layer}.{name}"] = matrix(rows, columns)
            if biases and name in "qkv":
                made[f"{layer}.{name}.bias"] = random.standard_normal(rows).astype(np.float32) / 4
        for name in ("input_norm", "post_norm"):
            made[f"{layer}.{name}"] = (1 + random.standard_normal(shape.width) / 10).astype(np.float32)
    return made


def alone(session, shape, prompt, count, end):
    past = {f"past_key_values.{layer}.{part}": np.zeros((1, shape.kv_heads, 0, shape.head_size), np.float32)
            for layer in range(shape.layers) for part in ("key", "value")}
    new, total, told, gaps = prompt, 0, [], []
    for _ in range(count):
        total += len(new)
        feed = {"input_ids": np.array([new]), "attention_mask": np.ones((1, total), np.int64),
                "num_logits_to_keep": np.array(1), **past}
        logits, *present = session.run(None, feed)
        past = dict(zip(past, present))
        first, second = np.sort(logits[0, -1])[::-1][:2]
        token = int(logits[0, -1].argmax())
        told.append(token)
        gaps.append(float(first - second))
        if token == end:
            break
        new = [token]
    return told, gaps


def main():
    prompts = ["A ship", "Ask it", "The engine turns, the ship", "and", "1 2 3", "Zażółć gęślą jaźń 🚢", TEXT[:120], "?"]
    for name, kind, seed, tied, biases, precision in (
        ("tiny-llama", "llama", 11, True, False, "f32"), ("tiny-qwen2", "qwen2", 22, False, True, "f32"),
        ("tiny-llama-int8", "llama", 11, True, False, "int8"),
    ):
        folder = os.path.join(HERE, name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(os.path.join(folder, "onnx"))
        shape = decoder_graph.Shape(layers=2, width=32, heads=4, kv_heads=2, head_size=16, vocabulary=VOCABULARY, context=256,
                                    rope_theta=10000.0, norm_epsilon=1e-5)
        made = tokenizer(folder)
        end = made.token_to_id("<|im_end|>")
        config = {"model_type": kind, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                  "hidden_size": 32, "vocab_size": VOCABULARY, "max_position_embeddings": 256, "eos_token_id": end}
        with open(os.path.join(folder, "config.json"), "w") as out:
            json.dump(config, out, indent=1)
        model = decoder_graph.build(shape, weights(shape, seed, tied, biases), decoder_graph.Precision(precision), {"name": name})
        path = os.path.join(folder, "onnx", "model.onnx")
        decoder_graph.save(model, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        golden = []
        for prompt in prompts:
            tokens = made.encode(prompt, add_special_tokens=False).ids
            told, gaps = alone(session, shape, tokens, 40, end)
            golden.append({"prompt": prompt, "tokens": tokens, "answer": told, "text": made.decode(told), "smallest_gap": min(gaps)})
            if precision != "f32":
                golden[-1]["gaps"] = [round(gap, 4) for gap in gaps]
            print(name, repr(prompt), len(told), round(min(gaps), 4), repr(golden[-1]["text"][:60]))
        with open(os.path.join(folder, "golden.json"), "w") as out:
            json.dump(golden, out, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
