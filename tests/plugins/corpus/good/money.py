# {"amounts": ["0.10", "0.20"]} -> "0.30"
from decimal import ROUND_HALF_UP, Decimal


def run(amounts):
    total = sum((Decimal(a) for a in amounts), Decimal("0"))
    return str(total.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))
