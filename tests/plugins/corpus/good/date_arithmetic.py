# {} -> ["2024-03-01T13:30:00", 29, 1709116200.0, [3, 29], "Wednesday 28 Feb", 1, "01:02:00", "1970-01-01T00:00:00+00:00", 2, true]
from datetime import datetime, date, timedelta, timezone, time as dtime
import calendar
import time


def run():
    d = datetime.strptime("2024-02-28 10:30", "%Y-%m-%d %H:%M")
    e = d + timedelta(days=2, hours=3)
    return [e.isoformat(), (date(2024, 3, 1) - date(2024, 2, 1)).days, d.replace(tzinfo=timezone.utc).timestamp(), calendar.monthrange(2024, 2), d.strftime("%A %d %b"), date.fromisoformat("2024-01-01").isocalendar()[1], dtime(1, 2).isoformat(), datetime.fromtimestamp(0, tz=timezone.utc).isoformat(), d.weekday(), d.date() == date(2024, 2, 28)]
