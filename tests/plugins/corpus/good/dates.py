# {"start": "2024-02-27", "days": 3} -> {"end": "2024-03-01", "weekday": "Friday", "iso": [2024, 9, 5]}
from datetime import date, datetime, timedelta


def run(start: str, days: int) -> dict:
    begin = datetime.strptime(start, "%Y-%m-%d").date()
    end = begin + timedelta(days=days)
    return {"end": end.isoformat(), "weekday": end.strftime("%A"), "iso": list(end.isocalendar())}
