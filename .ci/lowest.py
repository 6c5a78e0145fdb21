"""Print constraints that hold every direct dependency at the lowest version that it may have.

Usage: python .ci/lowest.py WHEEL > constraints.txt

They are read from the wheel, so that there is no list to keep: what it names with ``>=``, in its
extras too, is held at exactly that. What those need in turn is pip's choice.
"""

from __future__ import annotations

import re
import sys
import zipfile
from email.parser import Parser

_LOWEST = re.compile(r"(?P<name>[\w.-]+)(\[[\w,.-]*\])?\s*>=\s*(?P<version>[\w.]+)")


def constraints(wheel: str) -> list[str]:
    """Return one line for each requirement of `wheel` that has a lower bound."""
    with zipfile.ZipFile(wheel) as file:
        [name] = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(file.read(name).decode())
    found = (_LOWEST.match(each) for each in metadata.get_all("Requires-Dist", ()))
    return sorted({f"{each['name']}=={each['version']}" for each in found if each})


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in constraints(sys.argv[1])))
