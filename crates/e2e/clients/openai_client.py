"""OpenAI's own package against the gateway. Prints what it saw as JSON.

    openai_client.py BASE_URL all|object|limited|gone|cancel|cut MODEL [SERVER_PROCESS]
"""

import json
import os
import signal
import sys
from typing import Literal

import httpx2
import openai
from pydantic import BaseModel

base_url, part, model = sys.argv[1:4]
HELLO = [{"role": "user", "content": "hello there"}]
seen = {}


def client(**more):
    return openai.OpenAI(base_url=base_url, api_key="not checked", max_retries=0, **more)


def chat(**more):
    return client().chat.completions.create(**{"model": model, "messages": HELLO, "temperature": 0, **more})


def text(answer, index=0):
    return answer.choices[index].message.content


def error(call):
    """What a call fails with: class, status, code, param, whether the request's id is told."""
    try:
        call()
    except openai.APIStatusError as failed:
        body = failed.body or {}
        told = bool(failed.request_id) and body.get("request_id") == failed.request_id
        return [type(failed).__name__, failed.status_code, failed.code, failed.param, told]
    except openai.APIError as failed:
        return [type(failed).__name__]
    return "it did not fail"


class Mood(BaseModel):
    mood: Literal["good", "bad"]
    sure: bool


def everything():
    seen["models"] = [one.id for one in client().models.list()]
    seen["model"] = client().models.retrieve(model).id

    whole = chat(max_tokens=12)
    seen["finish"] = whole.choices[0].finish_reason
    seen["role"] = whole.choices[0].message.role
    seen["usage adds up"] = whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    seen["tokens"] = whole.usage.completion_tokens

    chunks = list(chat(max_tokens=12, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    seen["the stream says the same"] = said == text(whole)
    seen["streamed usage"] = [chunks[-1].usage.completion_tokens, chunks[-1].choices]
    seen["streamed finish"] = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1]
    seen["several chunks"] = len(chunks) > 5

    # Any two characters of the answer, such as its fifth and sixth, that are whole ones.
    letters = [at for at in range(1, len(said) - 1) if said[at : at + 2].isascii()]
    stop = said[letters[0] : letters[0] + 2]
    stopped = chat(max_tokens=12, stop=[stop, "never said"])
    seen["stopped"] = [stopped.choices[0].finish_reason, text(stopped) == said[: said.index(stop)]]

    many = chat(max_tokens=8, n=3, seed=5, temperature=1)
    again = chat(max_tokens=8, n=3, seed=5, temperature=1)
    alone = chat(max_tokens=8, seed=5, temperature=1)
    answers = [text(many, index) for index in range(3)]
    seen["three answers"] = [len(many.choices), len(set(answers)) > 1]
    seen["the same seed"] = answers == [text(again, index) for index in range(3)]
    seen["the first is the lone one"] = answers[0] == text(alone)
    streamed = ["", "", ""]
    for chunk in chat(max_tokens=8, n=3, seed=5, temperature=1, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    seen["three streamed answers"] = streamed == answers

    told = chat(max_tokens=6, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    seen["logprobs"] = [len(told), {len(one.top_logprobs) for one in told} == {3}]
    seen["greedy is likeliest"] = all(one.logprob == one.top_logprobs[0].logprob for one in told)

    form = client().chat.completions.parse(model=model, messages=HELLO, response_format=Mood, temperature=0)
    mood = form.choices[0].message.parsed
    seen["a schema holds"] = [mood.mood in ("good", "bad"), isinstance(mood.sure, bool)]

    prompt = {"model": model, "prompt": "once upon", "max_tokens": 6, "temperature": 0}
    plain = client().completions.create(**prompt, logprobs=2)
    echoed = client().completions.create(**prompt, echo=True)
    pieces = "".join(chunk.choices[0].text for chunk in client().completions.create(**prompt, stream=True))
    seen["completion"] = [plain.object, echoed.choices[0].text == "once upon" + plain.choices[0].text]
    seen["streamed completion"] = pieces == plain.choices[0].text
    seen["completion logprobs"] = len(plain.choices[0].logprobs.tokens)
    ours = chat(max_tokens=4, extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}, logit_bias={"5": -100})
    seen["options"] = len(ours.choices)

    seen["errors"] = {
        "temperature": error(lambda: chat(temperature=3)),
        "tools": error(lambda: chat(tools=[{"type": "function", "function": {"name": "f"}}])),
        "model": error(lambda: chat(model="nope")),
        "retrieve": error(lambda: client().models.retrieve("nope")),
        "context": error(lambda: chat(messages=[{"role": "user", "content": "hello " * 2000}])),
        "body": error(lambda: chat(messages=[{"role": "user", "content": "x" * (5 << 20)}])),
        "stream": error(lambda: chat(model="nope", stream=True)),
    }


def an_object():
    """Without a schema: a model that makes sense is needed for one that comes to its end."""
    question = [{"role": "user", "content": "Write a JSON object with the name and the age of a cat."}]
    free = chat(messages=question, max_tokens=200, response_format={"type": "json_object"})
    seen["object"] = [free.choices[0].finish_reason, json.loads(text(free))]


def cancel():
    """Leaves in the middle of a long answer, which has no end of its own."""
    endless = {"max_tokens": 1500, "logit_bias": {"2": -100}}
    stream = chat(**endless, stream=True)
    for _, _ in zip(range(3), stream):
        pass
    seen["request"] = stream.response.headers["x-request-id"]
    stream.close()
    try:
        client(timeout=0.05).chat.completions.create(model=model, messages=HELLO, **endless)
    except openai.APITimeoutError:
        seen["timeout"] = True
    late = {"X-Request-Timeout-Ms": "100"}
    seen["too late"] = error(lambda: chat(**endless, extra_headers=late))


def cut():
    """Kills the server in the middle of an answer."""

    def read():
        for number, _ in enumerate(chat(max_tokens=1500, logit_bias={"2": -100}, stream=True)):
            if number == 3:
                os.kill(int(sys.argv[4]), signal.SIGKILL)

    try:
        read()
        seen["cut"] = "it came to its end"
    except openai.APIError as failed:
        seen["cut"] = [type(failed).__name__, failed.code, failed.type]


def limited():
    """From another address, which nginx limits."""
    far = client(http_client=openai.DefaultHttpxClient(transport=httpx2.HTTPTransport(local_address="127.0.0.3")))
    answers = (error(lambda: far.models.retrieve(model)) for _ in range(200))
    seen["limited"] = next((one for one in answers if one != "it did not fail"), "never")


def gone():
    seen["gone"] = error(lambda: chat(max_tokens=2))
    seen["gone streamed"] = error(lambda: chat(max_tokens=2, stream=True))


{"all": everything, "object": an_object, "cancel": cancel, "cut": cut, "limited": limited, "gone": gone}[part]()
print(json.dumps(seen))
