"""Streams a result of many rows through pyarrow.flight and checks it on the way, without keeping it.

Usage: flight_large.py HOST:PORT OUTER INNER
"""

import sys

import pyarrow.compute as pc
import pyarrow.flight as flight

address, outer, inner = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sql = f"SELECT a, b, 'some text that makes a row wider ' || b AS t FROM generate_series(1, {outer}) AS a, generate_series(1, {inner}) AS b"
with flight.connect(f"grpc://{address}") as client:
    info = client.get_flight_info(flight.FlightDescriptor.for_command(sql.encode()))
    rows = total = largest = 0
    for chunk in client.do_get(info.endpoints[0].ticket):
        batch = chunk.data
        rows += batch.num_rows
        total += pc.sum(batch.column(0)).as_py() + pc.sum(batch.column(1)).as_py()
        largest = max(largest, batch.nbytes)
    expected = inner * outer * (outer + 1) // 2 + outer * inner * (inner + 1) // 2
    if (rows, total) != (outer * inner, expected):
        sys.exit(f"{rows} rows with the sum {total}; expected {outer * inner} with {expected}")
    if largest > 4 << 20:
        sys.exit(f"a batch of {largest} bytes")
    print(f"{rows} rows, largest batch {largest} bytes")
