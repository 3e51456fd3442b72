"""Streams a chat with generated code and Apache's Python library, and nothing else.

    pip install thrift==0.25.0
    mkdir gen && thrift -r --gen py -out gen idl/chat.thrift
    PYTHONPATH=gen python docs/clients/chat.py 127.0.0.1:9090 smollm2-135m-instruct "What is a rainbow?"

The answer is printed as it comes. Ctrl-C ends it on the server, too: the stream is bound to the connection.
"""

import os
import sys
import uuid

from outboard.base.ttypes import Base
from outboard.chat import Chat
from outboard.chat.ttypes import ChatRequest, FinishReason, Message, NextRequest, StartRequest
from outboard.fault.ttypes import Fault
from thrift.Thrift import TException
from thrift.protocol.TBinaryProtocol import TBinaryProtocolAccelerated
from thrift.transport import TSocket, TTransport

WAIT_MS = 10_000


def connect(address):
    host, port = address.rsplit(":", 1)
    socket = TSocket.TSocket(host, int(port))
    # Longer than a call waits for something new. After a timeout here the connection must be closed.
    socket.setTimeout(WAIT_MS + 5_000)
    transport = TTransport.TFramedTransport(socket)
    transport.open()
    return Chat.Client(TBinaryProtocolAccelerated(transport))


def stream(chat, model, question):
    """Yields the text of one answer as it comes."""
    request = ChatRequest(model=model, messages=[Message(role="user", content=question)])
    # The id stands in the server's log; a service hands on the one that it was called with.
    base = Base(request_id=f"python-{uuid.uuid4()}", caller="docs", timeout_ms=120_000)
    # bound: when this program ends in whatever way, so does the answer.
    start = StartRequest(base=base, stream_key=os.urandom(16), chat=request, bound=True)
    stream_id = chat.start(start).stream_id
    next_piece = 0
    while True:
        reply = chat.next_pieces(NextRequest(stream_id=stream_id, from_piece=next_piece, wait_ms=WAIT_MS))
        for piece in reply.pieces:
            next_piece = piece.number + 1
            if piece.error is not None:
                raise Fault(code=piece.error, message=piece.error_message, request_id=base.request_id)
            yield piece.text
            if piece.usage is not None:
                finish = FinishReason._VALUES_TO_NAMES.get(piece.finish, piece.finish)
                tokens = f"{piece.usage.prompt_tokens} + {piece.usage.completion_tokens} tokens"
                print(f"\n[{finish}, {tokens}, the first after {piece.timing.first_token_us / 1000:.0f} ms]",
                      file=sys.stderr)
        if reply.ended:
            return


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: chat.py HOST:PORT MODEL QUESTION")
    address, model, question = sys.argv[1:]
    try:
        for text in stream(connect(address), model, question):
            print(text, end="", flush=True)
    except Fault as fault:
        sys.exit(f"\n{fault.message} (request {fault.request_id})")
    except TException as error:  # no connection, no answer in time, or something that is no server of Outboard's
        sys.exit(f"\n{error}")
    print()


if __name__ == "__main__":
    main()
