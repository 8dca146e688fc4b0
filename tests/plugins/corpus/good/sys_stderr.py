# {} -> 1
import sys


def log(message: str) -> None:
    print(message, file=sys.stderr)


def run():
    log("hello")
    sys.stderr.write("x\n")
    sys.stdout.write("y\n")
    sys.stdout.flush()
    return 1


if __name__ == "__main__":
    sys.exit(run())
