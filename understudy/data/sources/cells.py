"""Cells of databases, warehouses and columnar files as JSON: explicit, type by type; what has no form is refused.

Decimals keep their digits as text, times take ISO form (a zone only where the source has one), ids of type uuid are
text, lists and structures keep their shape; binary has no form and costs the row.
"""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from typing import Any

from understudy.data.clean import Fault


def plain(name: str, cell: Any) -> Any:
    """The JSON form of one cell of column `name`. Raises Fault NUM_NOT_FINITE, NUM_RANGE, FIELD_TYPE."""
    if cell is None or isinstance(cell, (str, bool)):
        return cell
    if isinstance(cell, int):
        if not -(2**63) <= cell < 2**64:
            raise Fault("NUM_RANGE", f"{name!r} is an integer that does not fit 64 bits")
        return cell
    if isinstance(cell, float):
        if not math.isfinite(cell):
            raise Fault("NUM_NOT_FINITE", f"{name!r} is {cell}")
        return cell
    if isinstance(cell, decimal.Decimal):
        if not cell.is_finite():
            raise Fault("NUM_NOT_FINITE", f"{name!r} is {cell}")
        return format(cell, "f")
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta):
        return f"{cell.total_seconds():f}".rstrip("0").rstrip(".") + " s"
    if isinstance(cell, uuid.UUID):
        return str(cell)
    if isinstance(cell, (list, tuple)):
        return [plain(name, item) for item in cell]
    if isinstance(cell, dict):
        return {str(key): plain(f"{name}.{key}", item) for key, item in cell.items()}
    raise Fault("FIELD_TYPE", f"{name!r} is a {type(cell).__name__}; cast it to text in the query")
