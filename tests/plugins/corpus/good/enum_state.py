# {"events": ["start", "stop"]} -> ["IDLE", "RUNNING", "IDLE"]
from enum import Enum, auto


class State(Enum):
    IDLE = auto()
    RUNNING = auto()


TRANSITIONS = {(State.IDLE, "start"): State.RUNNING, (State.RUNNING, "stop"): State.IDLE}


def run(events):
    state = State.IDLE
    history = [state.name]
    for event in events:
        state = TRANSITIONS.get((state, event), state)
        history.append(state.name)
    return history
