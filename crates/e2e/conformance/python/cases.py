"""What cases.json lists, as calls: the same for both libraries, which bring their own structs, services and connections.

A library is a module with NAME, PROTOCOLS, every struct and service by its name in the IDL, Fault, TApplicationException,
Connection(address, protocol, transport, patience_ms), begin_infer(client, request), end_infer(client), and outcome_of(error), which
says "timeout" or "transport" of what went wrong with a connection, and None of anything else.
"""

import json
import os
import sys

lib = None


def base_of(case):
    timeout_ms = case.get("timeout_ms", 20_000)
    return lib.Base(request_id="conformance-" + case["name"], caller=lib.NAME, timeout_ms=timeout_ms)


def tensor_of(given):
    data = bytes(given["zeros"]) if "zeros" in given else bytes.fromhex(given["hex"]) if "hex" in given else None
    return lib.Tensor(name=given["name"], data_type=given["type"], shape=given["shape"], data=data,
                      strings=given.get("strings"))


def infer_request(case):
    return lib.InferRequest(base=base_of(case), model=case["model"], inputs=[tensor_of(case["input"])])


def inferred(reply):
    output = reply.outputs[0]
    seen = {"outputs": len(reply.outputs), "type": output.data_type, "shape": output.shape}
    if output.strings is not None:
        seen["strings"] = output.strings
    if output.data is not None:
        seen["bytes"] = len(output.data)
        if len(output.data) <= 64:
            seen["hex"] = output.data.hex()
    return seen | {"request_id": reply.request_id}


def chat_of(case):
    messages = [lib.Message(role="user", content=case["message"])]
    return lib.ChatRequest(base=base_of(case), model=case["model"], messages=messages, max_tokens=case["max_tokens"],
                           sampling=lib.Sampling(temperature=0.0))


def check(connection, case):
    client = connection.client(lib.Health, case.get("service", "Health"))
    reply = client.check(lib.CheckRequest(base=base_of(case), model=case.get("model")))
    return {"status": reply.status, "live": reply.live, "models": len(reply.models)}


def models(connection, case):
    client = connection.client(lib.Inference, "Inference")
    reply = client.models(lib.ModelsRequest(base=base_of(case), model=case.get("model")))
    return {"names": sorted(model.name for model in reply.models), "labels": len(reply.models[0].labels),
            "request_id": reply.request_id}


def classify(connection, case):
    pictures = [open(path, "rb").read() for path in case["pictures"]]
    reply = connection.client(lib.Inference, "Inference").classify(
        lib.ClassifyRequest(base=base_of(case), model=case["model"], images=pictures, top_k=case.get("top_k"),
                            preview_px=case.get("preview_px")))
    first = reply.results[0]
    return {"label": first.labels[0].label, "labels": len(first.labels), "results": len(reply.results),
            "format": first.format, "size": [first.width, first.height], "preview": first.preview is not None,
            "request_id": reply.request_id}


def infer(connection, case):
    return inferred(connection.client(lib.Inference, "Inference").infer(infer_request(case)))


def infer_cancelled(connection, case):
    client = connection.client(lib.Inference, "Inference")
    request = infer_request(case)
    request.base.call_id = os.urandom(16)
    lib.begin_infer(client, request)
    client.cancel(lib.CancelRequest(call_id=request.base.call_id))
    return inferred(lib.end_infer(client))


def embed(connection, case):
    texts = case["texts"] * case.get("repeat", 1)
    reply = connection.client(lib.Inference, "Inference").embed(
        lib.EmbedRequest(base=base_of(case), model=case["model"], texts=texts))
    return {"dimensions": reply.dimensions, "bytes": len(reply.vectors), "texts": len(reply.token_counts),
            "tokens": reply.token_counts, "request_id": reply.request_id}


def cancel(connection, _):
    connection.client(lib.Inference, "Inference").cancel(lib.CancelRequest(call_id=bytes(16)))


def complete(connection, case):
    reply = connection.client(lib.Chat, "Chat").complete(chat_of(case))
    first = reply.choices[0]
    return {"choices": len(reply.choices), "text": first.text, "finish": first.finish,
            "completion_tokens": reply.usage.completion_tokens, "request_id": reply.request_id}


def stream(connection, case):
    client = connection.client(lib.Chat, "Chat")
    request = lib.StartRequest(base=base_of(case), stream_key=os.urandom(16), chat=chat_of(case), bound=True)
    started = client.start(request)
    again = client.start(request)
    seen = {"text": "", "gapless": True, "again": "same" if again.stream_id == started.stream_id else "another"}
    number, ended = 0, False
    while not ended:
        reply = client.next_pieces(lib.NextRequest(stream_id=started.stream_id, from_piece=number, wait_ms=10_000))
        for piece in reply.pieces:
            seen["gapless"] &= piece.number == number
            number += 1
            seen["text"] += piece.text
            if piece.finish is not None:
                seen["finish"] = piece.finish
            if piece.usage is not None:
                seen["completion_tokens"] = piece.usage.completion_tokens
        ended = reply.ended
    return seen


def stop(connection, case):
    client = connection.client(lib.Chat, "Chat")
    request = lib.StartRequest(base=base_of(case), stream_key=os.urandom(16), chat=chat_of(case))
    stream_id = client.start(request).stream_id
    client.stop(lib.StopRequest(stream_id=stream_id))
    reply = client.next_pieces(lib.NextRequest(stream_id=stream_id, from_piece=0, wait_ms=10_000))
    return {"ended": reply.ended}


def next_pieces(connection, case):
    connection.client(lib.Chat, "Chat").next_pieces(lib.NextRequest(base=base_of(case), stream_id=case["stream"], from_piece=0))


def frobnicate(connection, _):
    connection.client(lib.Stranger, "Stranger").frobnicate(lib.Anything(text="x"))


def misread(connection, case):
    connection.client(lib.Misreader, "Health").check(lib.Misunderstood(base=base_of(case), model=7))


WAYS = {"check": check, "models": models, "classify": classify, "infer": infer, "infer-cancelled": infer_cancelled,
        "embed": embed, "cancel": cancel, "complete": complete, "stream": stream, "stop": stop, "next": next_pieces,
        "frobnicate": frobnicate, "misread": misread}


def run(connection, case):
    try:
        seen = WAYS[case["way"]](connection, case)
        return {"outcome": "oneway"} if seen is None else {"outcome": "reply"} | seen
    except lib.Fault as fault:
        return {"outcome": "fault", "code": fault.code, "message": fault.message, "param": fault.param,
                "request_id": fault.request_id}
    except lib.TApplicationException as error:
        return {"outcome": "application", "type": error.type, "message": error.message}
    except Exception as error:
        outcome = lib.outcome_of(error)
        if outcome is None:
            raise
        return {"outcome": outcome, "message": str(error)}


def goes_on(connection):
    try:
        return connection.client(lib.Health, "Health").check(lib.CheckRequest()).status == 1
    except Exception as error:
        return str(error)


def main(library):
    """Does it all; prints what it saw, one JSON object a line."""
    global lib
    lib = library
    path, address = sys.argv[1:]
    given = json.load(open(path))
    me = next(client for client in given["clients"] if client["name"] == library.NAME)
    for protocol in me["protocols"]:
        for transport in me["transports"]:
            for case in given["cases"]:
                if transport not in case.get("transports", ["framed", "multiplexed"]):
                    continue
                connection = library.Connection(address, protocol, transport, case.get("patience_ms", 30_000))
                seen = run(connection, case)
                if not case.get("last"):
                    seen["goes_on"] = goes_on(connection)
                connection.transport.close()
                print(json.dumps({"protocol": protocol, "transport": transport, "case": case["name"], **seen}), flush=True)
