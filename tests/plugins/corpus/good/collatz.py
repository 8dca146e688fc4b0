# {} -> {"steps": [10, 5, 16, 8, 4, 2, 1], "max": 16}
def run(n=3):
    """Collatz."""
    steps: list[int] = []
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps.append(n)
        if len(steps) > 1000:
            raise RuntimeError("too long")
    return {"steps": steps, "max": max(steps, default=0)}
