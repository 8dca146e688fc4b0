# {} -> [1, 2, 3]
def run(text="1 2 x 3"):
    it = iter(text.split())
    out = []
    while True:
        try:
            tok = next(it)
        except StopIteration:
            break
        try:
            out.append(int(tok))
        except ValueError:
            continue
    return out
