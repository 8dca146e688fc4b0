# {} -> ["0.33333", "2.68", "1/2", 8, 6, true, 10, 6, 2, 1.291, 5.0, true, true, -2, [2, 1], 2, "13/4", [15, 4], 8.0, 3, true, true]
from decimal import Decimal, ROUND_HALF_UP, getcontext, localcontext, InvalidOperation
from fractions import Fraction
import math
import cmath
import statistics as st
import numbers


def run():
    with localcontext() as ctx:
        ctx.prec = 5
        x = Decimal(1) / Decimal(3)
    try:
        Decimal("abc")
    except InvalidOperation:
        bad = True
    return [str(x), str(Decimal("2.675").quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)), str(Fraction(1, 3) + Fraction(1, 6)), Fraction("0.125").denominator, math.gcd(12, 18), math.isclose(0.1 + 0.2, 0.3), math.comb(5, 2), math.prod([1, 2, 3]), st.mean([1, 2, 3]), round(st.stdev([1, 2, 3, 4]), 4), abs(3 + 4j), isinstance(3, numbers.Number), math.inf > 1, math.floor(-1.5), divmod(7, 3), round(2.5), str(Fraction(3.25).limit_denominator(10)), (3.75).as_integer_ratio(), float.fromhex("0x1p3"), (5).bit_length(), bad, math.sqrt(2) == 2 ** 0.5]
