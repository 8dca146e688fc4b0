"""The wall clock, handed to whoever needs time so that tests can bring their own."""

import time


class SystemClock:
    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
