# {"number": 1994} -> "MCMXCIV"
def run(number: int) -> str:
    table = [(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),
             (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
    if not 0 < number < 4000:
        raise ValueError("out of range")
    parts = []
    for value, sign in table:
        while number >= value:
            parts.append(sign)
            number -= value
    return "".join(parts)
