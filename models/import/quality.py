"""Prints how much worse a chat model becomes when its weights are stored in fewer bits: the tables of its card.

  quality.py GGUF WORK [--answers FILE] [SPEC ...]

Needs requirements-quality.txt.

GGUF: a file that llama_gguf.py reads, of a model that takes ChatML. WORK: a folder for one converted model at a time. SPEC is the
options of llama_gguf.py after --weights, as "int8 --keep qkv"; without any the ones of SPECS are taken. All are compared with f32.

- perplexity: of quality/prose.txt, written for this and in no collection of texts
- agrees: how often the likeliest token is f32's, at every place of f32's answers to quality/questions.txt
- divergence: Kullback-Leibler divergence from f32's distribution at those places, mean, in nats
- same: of how many questions the first tokens of the greedy answer are all f32's
--answers writes the greedy answers themselves, f32's and those that differ from it, as Markdown.

How quick each is: crates/generate/examples/tokens_per_second.rs.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
SPECS = ("f32", "f16", "int8", "int8 --block 16", "int8 --keep qkv", "int8 --keep 0.,1.,28.,29.")
# Tokens of an answer that are generated, and how many of them must be equal for it to count as the same.
ANSWER, SAME = 40, 24
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


class Model:
    def __init__(self, folder):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(f"{folder}/onnx/model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        with open(f"{folder}/config.json", encoding="utf-8") as file:
            config = json.load(file)
        self.end = config["eos_token_id"]
        empty = np.zeros((1, config["num_key_value_heads"], 0, config["head_dim"]), np.float32)
        self.empty = {f"past_key_values.{layer}.{half}": empty
                      for layer in range(config["num_hidden_layers"]) for half in ("key", "value")}
        self.megabytes = sum(os.path.getsize(f"{folder}/onnx/{name}") for name in os.listdir(f"{folder}/onnx")) / 1e6

    def run(self, tokens, past, total, kept):
        logits, *present = self.session.run(None, {
            "input_ids": np.array([tokens]), "attention_mask": np.ones((1, total), np.int64),
            "num_logits_to_keep": np.array(kept), **past})
        return logits[0], dict(zip(self.empty, present))

    def prompt(self, question):
        text = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def answer(self, prompt):
        """The greedy answer, the end token among it."""
        told, new, past, total = [], prompt, self.empty, 0
        while len(told) < ANSWER and told[-1:] != [self.end]:
            total += len(new)
            logits, past = self.run(new, past, total, 1)
            new = [int(logits[-1].argmax())]
            told += new
        return told

    def log_probabilities(self, tokens, kept):
        """Of what follows each of the last `kept` tokens."""
        logits, _ = self.run(tokens, self.empty, len(tokens), kept)
        logits = logits.astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    def perplexity(self, text):
        tokens = self.tokenizer.encode(text, add_special_tokens=False).ids
        told = self.log_probabilities(tokens, 0)[:-1]
        return float(np.exp(-told[np.arange(len(tokens) - 1), tokens[1:]].mean())), len(tokens)


def read(name):
    with open(os.path.join(HERE, "quality", name), encoding="utf-8") as file:
        return file.read()


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("gguf")
    parser.add_argument("work")
    parser.add_argument("--answers")
    parser.add_argument("specs", nargs="*")
    words = parser.parse_args()
    questions, prose = read("questions.txt").splitlines(), read("prose.txt")
    specs = list(words.specs or SPECS)
    if specs[0] != "f32":
        specs.insert(0, "f32")
    reference, distributions, answers = [], [], {}
    for spec in specs:
        importer = [sys.executable, os.path.join(HERE, "llama_gguf.py"), words.gguf, words.work, "--weights", *shlex.split(spec)]
        subprocess.run(importer, check=True)
        model = Model(words.work)
        perplexity, length = model.perplexity(prose)
        prompts = [model.prompt(question) for question in questions]
        told = [model.answer(prompt) for prompt in prompts]
        answers[spec] = [model.tokenizer.decode(one) for one in told]
        reference = reference or told
        forced = [model.log_probabilities(prompt + one[:-1], len(one)) for prompt, one in zip(prompts, reference)]
        distributions = distributions or forced
        agrees = np.concatenate([own.argmax(axis=-1) == one for own, one in zip(forced, reference)])
        divergence = np.concatenate([(np.exp(p) * (p - q)).sum(axis=-1) for p, q in zip(distributions, forced)])
        same = sum(own[:SAME] == one[:SAME] for own, one in zip(told, reference))
        if spec == "f32":
            print(f"{length} tokens of prose, {len(questions)} questions, {len(agrees)} places in the answers; "
                  f"same: the first {SAME} tokens.\n")
            print("| weights | file | perplexity | agrees | divergence | same |")
            print("| --- | --- | --- | --- | --- | --- |")
        print(f"| {spec} | {model.megabytes:.0f} MB | {perplexity:.3f} | {agrees.mean():.4f} | {divergence.mean():.5f} "
              f"| {same} of {len(questions)} |", flush=True)
        del model
    if words.answers:
        with open(words.answers, "w", encoding="utf-8") as out:
            out.write("# Greedy answers, by the precision of the weights\n\n")
            out.write(f"By `models/import/quality.py`: f32's, and those that differ from it, cut off after {ANSWER} tokens.\n")
            for at, question in enumerate(questions):
                out.write(f"\n**{question}**\n")
                for spec in specs:
                    if spec == "f32" or answers[spec][at] != answers["f32"][at]:
                        out.write(f"- {spec}: {' '.join(answers[spec][at].split())}\n")


if __name__ == "__main__":
    main()
