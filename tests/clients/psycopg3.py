"""psycopg 3 against a node: text and binary, server-side cursors, COPY, pipeline mode, SUBSCRIBE, cancel."""

import sys
from datetime import date, datetime, timezone
from decimal import Decimal
from uuid import UUID

import psycopg

port = int(sys.argv[1])
conninfo = f"host=127.0.0.1 port={port} user=materialize dbname=materialize"

with psycopg.connect(conninfo, autocommit=True) as connection:
    connection.execute(
        "CREATE TABLE things (i2 int2, i4 int, i8 bigint, f8 float8, n numeric(12,3), t text, b bytea, ok bool,"
        " d date, ts timestamp, tz timestamptz, u uuid, j jsonb, a int[])"
    )
    row = (
        1,
        -2,
        3_000_000_000,
        1.5,
        Decimal("12.345"),
        "häh'\"",
        b"\x00\xff",
        True,
        date(2026, 2, 28),
        datetime(2026, 1, 2, 3, 4, 5, 678900),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        UUID("12345678-1234-5678-1234-567812345678"),
        psycopg.types.json.Jsonb({"k": [1, 2.5, None, "x"]}),
        [1, None, 3],
    )
    connection.execute("INSERT INTO things VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)", row)
    expected = row[:12] + ({"k": [1, 2.5, None, "x"]}, [1, None, 3])
    for binary in (False, True):
        got = connection.cursor(binary=binary).execute("SELECT * FROM things").fetchone()
        assert got == expected, (binary, got, expected)

    # Parameters, prepared statements.
    for number in range(10):
        got = connection.execute("SELECT i4 + %s FROM things WHERE i8 > %s", (number, 5), prepare=True).fetchone()
        assert got == (number - 2,), got

    # COPY in both directions and formats.
    connection.execute("CREATE TABLE copied (id int, name text)")
    with connection.cursor().copy("COPY copied (id, name) FROM STDIN") as copy:
        for number in range(10_000):
            copy.write_row((number, f"name\t{number}" if number % 2 else None))
    with connection.cursor().copy("COPY copied (id, name) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "text"])
        for number in range(10_000, 11_000):
            copy.write_row((number, f"binary {number}"))
    assert connection.execute("SELECT count(*), count(name), sum(id) FROM copied").fetchone()[:2] == (11_000, 6_000)
    with connection.cursor().copy("COPY (SELECT id, name FROM copied ORDER BY id LIMIT 3) TO STDOUT") as copy:
        rows = list(copy.rows())
    assert rows == [("0", None), ("1", "name\t1"), ("2", None)], rows

    # Errors carry SQLSTATE and position, and the connection goes on.
    try:
        connection.execute("SELECT nothing FROM copied")
        raise AssertionError("an unknown column was accepted")
    except psycopg.errors.UndefinedColumn as error:
        assert "nothing" in str(error), error
    try:
        connection.execute("SELECT 1 / (id - id) FROM copied")
        raise AssertionError("a division by zero was accepted")
    except psycopg.errors.DivisionByZero:
        pass

# Server-side cursors fetch in portions inside a transaction.
with psycopg.connect(conninfo) as connection:
    with connection.cursor(name="portions") as cursor:
        cursor.itersize = 1000
        cursor.execute("SELECT id FROM copied ORDER BY id")
        assert [value for (value,) in cursor] == list(range(11_000))

# Pipeline mode.
with psycopg.connect(conninfo, autocommit=True) as connection:
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int * 2", (number,)) for number in range(20)]
        assert [cursor.fetchone()[0] for cursor in cursors] == [number * 2 for number in range(20)]

# A subscription streams as things happen, and ends when it is closed.
with psycopg.connect(conninfo, autocommit=True) as watcher, psycopg.connect(conninfo, autocommit=True) as writer:
    stream = watcher.cursor().stream("SUBSCRIBE (SELECT name FROM copied WHERE id = -1)")
    writer.execute("INSERT INTO copied VALUES (-1, 'first')")
    timestamp, diff, name = next(stream)
    assert (diff, name) == (1, "first"), (diff, name)
    writer.execute("DELETE FROM copied WHERE id = -1")
    later, diff, name = next(stream)
    assert (diff, name) == (-1, "first") and later > timestamp, (later, diff, name)
    watcher.cancel()
    try:
        next(stream)
        raise AssertionError("a cancelled subscription went on")
    except psycopg.errors.QueryCanceled:
        pass

print("ok")
