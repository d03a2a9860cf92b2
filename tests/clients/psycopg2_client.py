"""psycopg 2 against a node: parameters, types, transactions, named cursors, COPY, batches, notices, errors, cancel."""

import io
import sys
import threading
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import psycopg2
import psycopg2.errors
import psycopg2.extras

port = int(sys.argv[1])
dsn = f"host=127.0.0.1 port={port} user=materialize dbname=materialize"
psycopg2.extras.register_uuid()

connection = psycopg2.connect(dsn, application_name="psycopg2 test")
connection.autocommit = True
cursor = connection.cursor()
assert connection.server_version >= 150000, connection.server_version
assert connection.encoding == "UTF8", connection.encoding
assert connection.get_parameter_status("integer_datetimes") == "on"
assert connection.get_parameter_status("TimeZone") == "UTC"

# Every type both ways: psycopg 2 writes parameters into the text as literals.
cursor.execute(
    "CREATE TABLE p2 (i2 int2, i4 int, i8 bigint, f4 real, f8 float8, n numeric(12,3), t text, v varchar(10), b bytea, ok bool,"
    " d date, tm time, ts timestamp, tz timestamptz, iv interval, u uuid, j jsonb, a int[], ta text[])"
)
row = (
    1,
    -2,
    3_000_000_000,
    0.5,
    1.5,
    Decimal("12.345"),
    "häh'\"\\ %",
    "short",
    psycopg2.Binary(b"\x00\xff'"),
    True,
    date(2026, 2, 28),
    time(1, 2, 3, 456000),
    datetime(2026, 1, 2, 3, 4, 5, 678900),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    timedelta(days=3, hours=4, seconds=5.5),
    uuid.UUID("12345678-1234-5678-1234-567812345678"),
    psycopg2.extras.Json({"k": [1, 2.5, None, "x"]}),
    [1, None, 3],
    ["a,b", 'c"d', None, ""],
)
cursor.execute(f"INSERT INTO p2 VALUES ({', '.join(['%s'] * len(row))})", row)
assert cursor.rowcount == 1 and cursor.statusmessage == "INSERT 0 1", cursor.statusmessage
cursor.execute("SELECT * FROM p2")
got = list(cursor.fetchone())
got[8] = bytes(got[8])
expected = list(row)
expected[8] = b"\x00\xff'"
expected[16] = {"k": [1, 2.5, None, "x"]}
assert got == expected, (got, expected)
described = {column.name: (column.type_code, column.internal_size) for column in cursor.description}
assert described["i4"] == (23, 4) and described["n"][0] == 1700 and described["tz"] == (1184, 8), described
numeric = next(column for column in cursor.description if column.name == "n")
assert (numeric.precision, numeric.scale) == (12, 3), numeric

# NULL, and what must be quoted.
cursor.execute("SELECT %s::text IS NULL, %s = ANY(%s), %s IN %s", (None, 2, [1, 2], "b", ("a", "b")))
assert cursor.fetchone() == (True, True, True)

# Batches.
psycopg2.extras.execute_values(cursor, "INSERT INTO p2 (i4, t) VALUES %s", [(number, f"n{number}") for number in range(250)])
psycopg2.extras.execute_batch(cursor, "UPDATE p2 SET t = %s WHERE i4 = %s", [("changed", 0), ("changed", 1)])
cursor.execute("SELECT count(*) FROM p2 WHERE t = 'changed'")
assert cursor.fetchone() == (2,)
cursor.execute("DELETE FROM p2 WHERE t LIKE %s", ("n%",))
assert cursor.rowcount == 248, cursor.rowcount

# Rows as dictionaries.
with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as dictionaries:
    dictionaries.execute("SELECT i4 AS number, t FROM p2 WHERE i4 = 0")
    assert dictionaries.fetchall() == [{"number": 0, "t": "changed"}]

# COPY in both directions.
cursor.execute("CREATE TABLE p2_copied (id int, name text)")
lines = "".join(f"{number}\tname {number}\n" if number % 2 else f"{number}\t\\N\n" for number in range(5000))
cursor.copy_expert("COPY p2_copied FROM STDIN", io.StringIO(lines))
cursor.copy_expert("COPY p2_copied FROM STDIN WITH (FORMAT csv, HEADER)", io.StringIO('id,name\n-1,"a,""b"\n'))
out = io.StringIO()
cursor.copy_expert("COPY (SELECT id, name FROM p2_copied WHERE id < 2 ORDER BY id) TO STDOUT WITH (FORMAT csv)", out)
assert out.getvalue() == '-1,"a,""b"\n0,\n1,name 1\n', out.getvalue()

# Transactions: rollback, commit, an error that fails the block, isolation levels.
connection.autocommit = False
cursor.execute("INSERT INTO p2_copied VALUES (-2, 'gone')")
connection.rollback()
cursor.execute("INSERT INTO p2_copied VALUES (-3, 'stays')")
connection.commit()
cursor.execute("SELECT id FROM p2_copied WHERE id < -1")
assert cursor.fetchall() == [(-3,)]
try:
    cursor.execute("SELECT nothing FROM p2_copied")
    raise AssertionError("an unknown column was accepted")
except psycopg2.errors.UndefinedColumn as error:
    assert error.pgcode == "42703" and error.diag.statement_position == "8", (error.pgcode, error.diag.statement_position)
assert connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INERROR
try:
    cursor.execute("SELECT 1")
    raise AssertionError("a failed transaction went on")
except psycopg2.errors.InFailedSqlTransaction:
    connection.rollback()
connection.set_session(isolation_level="SERIALIZABLE", readonly=True)
cursor.execute("SELECT count(*) FROM p2_copied")
assert cursor.fetchone() == (5002,)
connection.rollback()
connection.set_session(isolation_level="DEFAULT", readonly=False)

# A named cursor fetches in portions.
with connection.cursor(name="portions") as portions:
    portions.itersize = 500
    portions.execute("SELECT id FROM p2_copied WHERE id >= 0 ORDER BY id")
    assert [value for (value,) in portions] == list(range(5000))
connection.commit()
connection.autocommit = True

# Notices.
cursor.execute("CREATE TABLE IF NOT EXISTS p2_copied (id int)")
assert any("already exists" in notice for notice in connection.notices), connection.notices

# Cancel from another thread.
timer = threading.Timer(0.3, connection.cancel)
timer.start()
try:
    cursor.copy_expert(
        "COPY (SUBSCRIBE (SELECT 1 FROM p2_copied WHERE id = -100)) TO STDOUT", io.StringIO()
    )
    raise AssertionError("a cancelled statement ended well")
except psycopg2.errors.QueryCanceled:
    pass
finally:
    timer.join()
cursor.execute("SELECT 1")
assert cursor.fetchone() == (1,)
connection.close()

print("ok")
