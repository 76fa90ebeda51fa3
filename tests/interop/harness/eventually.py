"""Polling with a deadline, the only way these tests wait."""

import time

DEADLINE_S = 15.0


def eventually(probe, expected=None, *, deadline_s=DEADLINE_S):
    """Calls `probe` until it returns `expected` (or anything true), then returns that; fails with the last answer."""
    last = "nothing yet"
    end = time.monotonic() + deadline_s
    pause_s = 0.002
    while True:
        try:
            last = probe()
            if last == expected if expected is not None else last:
                return last
        except (OSError, AssertionError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: last saw {last!r}" + (f", expected {expected!r}" if expected is not None else ""))
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)
