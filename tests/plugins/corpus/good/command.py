# {"line": "move north 3"} -> "moved north by 3"
def run(line: str) -> str:
    match line.split():
        case ["move", ("north" | "south") as way, steps]:
            return f"moved {way} by {int(steps)}"
        case ["say", *words]:
            return " ".join(words)
        case []:
            return "nothing"
        case _:
            raise ValueError(f"unknown command: {line!r}")
