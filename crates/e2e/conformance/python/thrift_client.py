"""Does what cases.json lists with Apache's Python library and generated code; see cases.py.

    PYTHONPATH=GENERATED python thrift_client.py CASES.json HOST:PORT
"""

import sys

import cases
from outboard.base.ttypes import Base
from outboard.chat import Chat
from outboard.chat.ttypes import ChatRequest, Message, NextRequest, Sampling, StartRequest, StopRequest
from outboard.fault.ttypes import Fault
from outboard.health import Health
from outboard.health.ttypes import CheckRequest
from outboard.inference import Inference
from outboard.inference.ttypes import (CancelRequest, ClassifyRequest, EmbedRequest, InferRequest, ModelsRequest,
                                       Tensor)
from outboard.stranger import Misreader, Stranger
from outboard.stranger.ttypes import Anything, Misunderstood
from thrift.protocol.TBinaryProtocol import TBinaryProtocol, TBinaryProtocolAccelerated
from thrift.protocol.TCompactProtocol import TCompactProtocol, TCompactProtocolAccelerated
from thrift.protocol.TMultiplexedProtocol import TMultiplexedProtocol
from thrift.Thrift import TApplicationException
from thrift.transport import TSocket, TTransport

NAME = "python-thrift"
PROTOCOLS = {"binary": TBinaryProtocol, "binary-accelerated": TBinaryProtocolAccelerated,
             "compact": TCompactProtocol, "compact-accelerated": TCompactProtocolAccelerated}


class Connection:
    def __init__(self, address, protocol, transport, patience_ms):
        host, port = address.rsplit(":", 1)
        socket = TSocket.TSocket(host, int(port))
        socket.setTimeout(patience_ms)
        layer = TTransport.TBufferedTransport if transport == "buffered" else TTransport.TFramedTransport
        self.transport = layer(socket)
        self.protocol = PROTOCOLS[protocol](self.transport)
        self.multiplexed = transport == "multiplexed"
        self.transport.open()

    def client(self, service, name):
        protocol = TMultiplexedProtocol(self.protocol, name) if self.multiplexed else self.protocol
        return service.Client(protocol)


def begin_infer(client, request):
    client.send_infer(request)


def end_infer(client):
    return client.recv_infer()


def outcome_of(error):
    if not isinstance(error, TTransport.TTransportException):
        return None
    return "timeout" if error.type == TTransport.TTransportException.TIMED_OUT else "transport"


if __name__ == "__main__":
    cases.main(sys.modules[__name__])
