"""What schemathesis cannot know from the description: whole tokens, a prompt the fleet holds, a real event."""
import json
import os
import struct

import schemathesis
from hypothesis import strategies as st

PROMPT = json.loads(os.environ["KVATLAS_PROMPT"])
EVENT = os.environ["KVATLAS_EVENT"]

# A schema cannot ask for a multiple of four bytes.
TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=600).map(lambda tokens: struct.pack(f"<{len(tokens)}I", *tokens))
schemathesis.openapi.media_type("application/octet-stream", TOKENS)

FIRST, SECOND = ["demo-1", "LocalCPUBackend"], ["demo-2", "LocalCPUBackend"]
BODIES = {
    "lookup": PROMPT,
    "lookup_chunks": PROMPT,
    "diagnose": PROMPT,
    "pin": {"instance_id": FIRST[0], "location": FIRST[1], **PROMPT},
    "move": {"old_position": FIRST, "new_position": SECOND, "should_copy": True, **PROMPT},
    "check_finish": {"event_id": EVENT},
}


@schemathesis.hook
def before_add_examples(context, examples):
    operation = context.operation
    name = operation.definition.raw["operationId"]
    if name in BODIES:
        examples.append(operation.Case(body=BODIES[name], media_type="application/json"))
    if name == "event":
        examples.append(operation.Case(path_parameters={"id": EVENT}))
