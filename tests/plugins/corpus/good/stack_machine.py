# {"program": "2 3 + 4 *"} -> 20
import operator

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def run(program: str):
    stack = []
    for token in program.split():
        if token in OPERATIONS:
            b = stack.pop()
            a = stack.pop()
            stack.append(OPERATIONS[token](a, b))
        else:
            stack.append(float(token) if "." in token else int(token))
    if len(stack) != 1:
        raise ValueError("malformed program")
    return stack[0]
