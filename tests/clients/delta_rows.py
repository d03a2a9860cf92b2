"""Prints the rows of a Delta table, read with nothing but `deltalake`: values joined by `|`, one row a line, in any order.

usage: delta_rows.py PATH PROJECTION, where PROJECTION is a SELECT list over the table
"""

import sys

from deltalake import DeltaTable, QueryBuilder

path, projection = sys.argv[1:]
table = DeltaTable(path)
result = QueryBuilder().register("t", table).execute(f"SELECT {projection} FROM t")
batches = result.read_all() if hasattr(result, "read_all") else result
columns = [column.to_pylist() if hasattr(column, "to_pylist") else list(column) for column in batches.columns]
out = sys.stdout
for row in zip(*columns):
    out.write("|".join("NULL" if value is None else str(value) for value in row))
    out.write("\n")
