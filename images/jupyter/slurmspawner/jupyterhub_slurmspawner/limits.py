"""Time limits and memory as Slurm writes them."""

from __future__ import annotations

import re
from datetime import timedelta

_UNLIMITED = frozenset({"infinite", "unlimited"})
# https://slurm.schedmd.com/sbatch.html#OPT_time: minutes, minutes:seconds, hours:minutes:seconds, days-hours,
# days-hours:minutes, days-hours:minutes:seconds.
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
_MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_MIB = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


def time_limit(text: str) -> timedelta:
    """Read a time limit.

    Raises:
        ValueError: it is none.

    Example:
        >>> time_limit("30:00"), time_limit("1-12"), time_limit("90")
        (datetime.timedelta(seconds=1800), datetime.timedelta(days=1, seconds=43200), datetime.timedelta(seconds=5400))
    """
    if text.lower() in _UNLIMITED:
        return timedelta.max
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no time limit of Slurm: 30:00 is minutes, 2:00:00 hours, 1-12 days and hours")
    parts = [int(part) for part in found["parts"].split(":")]
    names = ("hours", "minutes", "seconds") if found["days"] or len(parts) == 3 else ("minutes", "seconds")
    try:
        return timedelta(days=int(found["days"] or 0), **dict(zip(names, parts, strict=False)))
    except OverflowError:
        raise ValueError(f"{text!r} is no time limit of Slurm: it is too long") from None


def written(limit: timedelta) -> str:
    """Write a time limit as people read it.

    Example:
        >>> written(timedelta(hours=36)), written(timedelta(minutes=30))
        ('1-12:00:00', '0:30:00')
    """
    if limit == timedelta.max:
        return "unlimited"
    days, rest = divmod(int(limit.total_seconds()), 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock.removeprefix("0")


def mebibytes(text: str) -> float:
    """Read an amount of memory; without a unit it is MiB: https://slurm.schedmd.com/sbatch.html#OPT_mem

    Raises:
        ValueError: it is none.

    Example:
        >>> mebibytes("4G"), mebibytes("512")
        (4096.0, 512.0)
    """
    found = _MEMORY.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no amount of memory of Slurm: 512M and 4G are")
    return int(found[1]) * _MIB[found[2].upper()]
