"""Prints the number of rows of a Delta table and the sum of one column, read with nothing but `deltalake`."""

import sys

from deltalake import DeltaTable, QueryBuilder

path, column = sys.argv[1:]
table = DeltaTable(path)
result = QueryBuilder().register("t", table).execute(f'SELECT count(*) AS n, coalesce(sum("{column}"), 0) AS total FROM t')
batches = result.read_all() if hasattr(result, "read_all") else result
columns = batches.to_pydict() if hasattr(batches, "to_pydict") else {name: batches.column(name).to_pylist() for name in batches.schema.names}
print(columns["n"][0], columns["total"][0])
