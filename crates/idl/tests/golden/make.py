"""Writes the golden frames: what Apache's Python library 0.25.0 sends, and what it would answer, in both protocols.

    thrift -r --gen py -out GENERATED idl/inference.thrift (and chat, health)
    PYTHONPATH=GENERATED python crates/idl/tests/golden/make.py

One file, frames.json: name, protocol, the frame in hex. The tests read each frame, and write it again to the same bytes.
"""

import json
from pathlib import Path

from outboard.base.ttypes import Base, Priority
from outboard.chat import Chat
from outboard.chat.ttypes import ChatRequest, Message, NextReply, NextRequest, Piece, Sampling, Usage
from outboard.fault.ttypes import Fault, FaultCode
from outboard.health import Health
from outboard.health.ttypes import CheckReply, CheckRequest, ModelHealth, ServingStatus
from outboard.inference import Inference
from outboard.inference.ttypes import (CancelRequest, Classification, ClassifyReply, ClassifyRequest, DataType,
                                       InferRequest, Label, Tensor, Timing)
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.protocol.TMultiplexedProtocol import TMultiplexedProtocol
from thrift.Thrift import TApplicationException, TMessageType
from thrift.transport.TTransport import TFramedTransport, TMemoryBuffer

BASE = Base(request_id="golden-1", caller="golden", call_id=bytes(range(16)), timeout_ms=1500,
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", priority=Priority.INTERACTIVE)
TENSOR = Tensor(name="x", data_type=DataType.F32, shape=[1, -1, 1 << 40], data=b"\x00\x00\x80\x3f", strings=["Grüße", ""])
CALLS = {
    "check": (Health, "Health", CheckRequest(base=BASE, model="世界")),
    "infer": (Inference, "Inference", InferRequest(base=BASE, model="m", inputs=[TENSOR], outputs=["y"])),
    "classify": (Inference, "Inference", ClassifyRequest(model="m", images=[b"\xff\xd8", b""], top_k=5, preview_px=-1)),
    "cancel": (Inference, "Inference", CancelRequest(call_id=bytes(16))),
    "complete": (Chat, "Chat", ChatRequest(model="m", messages=[Message(role="user", content="🚀")], max_tokens=300,
                                           sampling=Sampling(temperature=0.5, logit_bias={7: -1.5}, seed=-1), stop=["\n"])),
    "next_pieces": (Chat, "Chat", NextRequest(stream_id="s", from_piece=1 << 33, wait_ms=0)),
}
ANSWERS = {
    "check": (Health, CheckReply(status=ServingStatus.SERVING, since_ms=5, load=0.25, live=True,
                                 models=[ModelHealth(model="m", status=1, waiting=0)], version="1", instance="i")),
    "classify": (Inference, ClassifyReply(
        results=[Classification(labels=[Label(label="cat", index=1, score=0.75)], width=28, height=28, format="png")],
        model="m", version="1", timing=Timing(1, 2, 3, 4, 5), request_id="golden-1")),
    "next_pieces": (Chat, NextReply(pieces=[Piece(number=0, index=0, text="é", finish=1, usage=Usage(3, 4, 0))], ended=True,
                                    request_id="golden-1")),
}
FAULT = Fault(code=FaultCode.NotFound, message="no model `m`", retry_after_ms=None, request_id="golden-1", param="model")


def frames():
    for name, protocol_of in (("binary", TBinaryProtocol), ("compact", TCompactProtocol)):
        def frame(write):
            memory = TMemoryBuffer()
            protocol = protocol_of(TFramedTransport(memory))
            write(protocol)
            return memory.getvalue().hex()

        def message(method, kind, body):
            def write(protocol):
                protocol.writeMessageBegin(method, kind, 0)
                body.write(protocol)
                protocol.writeMessageEnd()
                protocol.trans.flush()
            return frame(write)

        for method, (service, service_name, request) in CALLS.items():
            def send(protocol):
                getattr(service.Client(protocol), "send_" + method)(request)
            yield {"what": "call", "method": method, "protocol": name, "frame": frame(send)}
            yield {"what": "call", "service": service_name, "method": method, "protocol": name,
                   "frame": frame(lambda protocol: send(TMultiplexedProtocol(protocol, service_name)))}
        for method, (service, reply) in ANSWERS.items():
            result = getattr(service, method + "_result")
            yield {"what": "reply", "method": method, "protocol": name,
                   "frame": message(method, TMessageType.REPLY, result(success=reply))}
            yield {"what": "fault", "method": method, "protocol": name,
                   "frame": message(method, TMessageType.REPLY, result(fault=FAULT))}
        error = TApplicationException(TApplicationException.UNKNOWN_METHOD, "no method x is served here")
        yield {"what": "exception", "method": "x", "protocol": name, "frame": message("x", TMessageType.EXCEPTION, error)}


lines = ",\n".join(json.dumps(frame) for frame in frames())
Path(__file__).with_name("frames.json").write_text(f"[\n{lines}\n]\n")
