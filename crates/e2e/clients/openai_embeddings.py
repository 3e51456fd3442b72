"""Embeddings through OpenAI's own package. Prints what it saw as JSON.

    openai_embeddings.py BASE_URL MODEL
"""

import json
import math
import sys

import openai

base_url, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="not checked", max_retries=0)
TEXTS = [
    "How do I change my password?",
    "I cannot log in any more and need a new secret word.",
    "The orchestra played until midnight.",
]
seen = {}


def embed(texts, **more):
    return client.embeddings.create(model=model, input=texts, **more)


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def near(one, other):
    return all(abs(a - b) < 1e-6 for a, b in zip(one, other, strict=True))


def error(call):
    """What a call fails with: class, status, code, param."""
    try:
        call()
    except openai.APIStatusError as failed:
        return [type(failed).__name__, failed.status_code, failed.code, failed.param]
    return "nothing"


# Without a format the package asks for base64 and unpacks it.
unasked = embed(TEXTS)
vectors = [one.embedding for one in unasked.data]
seen["object"] = [unasked.object, unasked.data[0].object, unasked.model]
seen["places"] = [one.index for one in unasked.data]
seen["numbers"] = [len(vector) for vector in vectors]
seen["usage"] = [unasked.usage.prompt_tokens > 0, unasked.usage.prompt_tokens == unasked.usage.total_tokens]
seen["length 1"] = all(abs(math.hypot(*vector) - 1) < 1e-5 for vector in vectors)
floats = embed(TEXTS, encoding_format="float")
seen["both formats say the same"] = all(near(one.embedding, vector) for one, vector in zip(floats.data, vectors, strict=True))
seen["alone as together"] = near(embed(TEXTS[1]).data[0].embedding, vectors[1])
seen["alike is nearer"] = dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]) + 0.2
short = embed(TEXTS[0], dimensions=16).data[0].embedding
scale = math.hypot(*vectors[0][:16])
seen["cut"] = [len(short), near(short, [value / scale for value in vectors[0][:16]])]
seen["many"] = [one.index for one in embed([f"Text number {number}." for number in range(500)]).data] == list(range(500))
seen["errors"] = {
    "model": error(lambda: client.embeddings.create(model="absent", input="x")),
    "empty": error(lambda: embed("")),
    "no texts": error(lambda: embed([])),
    "long": error(lambda: embed(["short", "word " * 300])),
    "dimensions": error(lambda: embed("x", dimensions=100_000)),
}
seen["cut to fit"] = embed("word " * 300, extra_body={"truncate": True}).usage.prompt_tokens
print(json.dumps(seen))
