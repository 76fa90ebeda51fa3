"""Free ports on loopback, below the kernel's ephemeral range so that outgoing connections do not take them."""

import random
import socket

_handed_out = set()


def free_ports(n):
    """`n` distinct ports that could be bound a moment ago. Callers retry when somebody was faster."""
    found = []
    while len(found) < n:
        port = random.SystemRandom().randrange(12000, 32000)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        found.append(port)
    return found
