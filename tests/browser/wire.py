"""What a worker's scripts need: its two sockets at PULL and REPLY, the first two arguments."""

import sys

import msgspec
import zmq

pull, reply = sys.argv[1:3]
encode = msgspec.msgpack.Encoder().encode
context = zmq.Context()
asking = context.socket(zmq.DEALER)
asking.setsockopt(zmq.RCVTIMEO, 30_000)
asking.connect(f"tcp://{reply}")
telling = context.socket(zmq.PUSH)
telling.connect(f"tcp://{pull}")


def ask(message):
    asking.send_multipart([b"", encode(message)])
    asking.recv_multipart()


def tell(message):
    telling.send(encode(message))


def close():
    telling.close(linger=30_000)
    asking.close(linger=0)
    context.term()
