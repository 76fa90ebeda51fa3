"""The command side of a worker: a REP socket that answers as told and remembers what it was asked."""

import threading

import msgspec
import zmq
from lmcache.v1.cache_controller.message import (
    ClearWorkerRetMsg,
    CompressWorkerRetMsg,
    DecompressWorkerRetMsg,
    ErrorMsg,
    HealthWorkerRetMsg,
    MoveWorkerRetMsg,
    Msg,
    PinWorkerRetMsg,
)


class ScriptedWorker:
    """Listens on a free port of loopback until closed."""

    def __init__(self):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1", 12000, 32000)
        self.asked = []
        self.n_tokens = 256
        self.error = None
        self.open = True
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while self.open:
            if self.socket.poll(50):
                message = msgspec.msgpack.decode(self.socket.recv(), type=Msg)
                self.asked.append(message)
                self.socket.send(msgspec.msgpack.encode(self._answer(type(message).__name__)))

    def _answer(self, name):
        if self.error is not None:
            return ErrorMsg(error=self.error)
        n = self.n_tokens
        return {
            "ClearWorkerMsg": lambda: ClearWorkerRetMsg(num_tokens=n),
            "PinWorkerMsg": lambda: PinWorkerRetMsg(num_tokens=n),
            "CompressWorkerMsg": lambda: CompressWorkerRetMsg(num_tokens=n),
            "DecompressWorkerMsg": lambda: DecompressWorkerRetMsg(num_tokens=n),
            "MoveWorkerMsg": lambda: MoveWorkerRetMsg(num_tokens=n),
            "HealthWorkerMsg": lambda: HealthWorkerRetMsg(error_code=0),
        }[name]()

    def close(self):
        self.open = False
        self.thread.join(10)
        self.context.destroy(linger=0)
