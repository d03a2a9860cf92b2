"""Prints every version of a Delta table that records an epoch, read with nothing but `deltalake`.

usage: delta_versions.py PATH APP_ID PROJECTION, where PROJECTION is a SELECT list over the table

A line `epoch E`, then the rows of that version: values joined by `|`, one row a line, in any order.
"""

import sys

from deltalake import DeltaTable, QueryBuilder

path, app_id, projection = sys.argv[1:]
last = None
for version in range(DeltaTable(path).version() + 1):
    table = DeltaTable(path, version=version)
    epoch = table.transaction_version(app_id)
    if epoch is None:
        continue
    result = QueryBuilder().register("t", table).execute(f"SELECT {projection} FROM t")
    batches = result.read_all() if hasattr(result, "read_all") else result
    columns = [column.to_pylist() if hasattr(column, "to_pylist") else list(column) for column in batches.columns]
    print(f"epoch {epoch}")
    for row in zip(*columns):
        print("|".join("NULL" if value is None else str(value) for value in row))
