"""ADBC's Flight SQL driver against a node: queries, parameters, transactions, bulk ingest, metadata, subscriptions, cancel.

Usage: adbc.py HOST:PORT
"""

import json
import sys
import threading
import time
from datetime import date, datetime, timezone
from decimal import Decimal
from uuid import UUID

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa

address = sys.argv[1]


def connect(user=None, autocommit=True):
    options = {"username": user, "password": "any"} if user else {}
    return flightsql.connect(f"grpc://{address}", db_kwargs=options, autocommit=autocommit)


def check(got, expected, what=""):
    if got != expected:
        raise AssertionError(f"{what}: got {got!r}, expected {expected!r}")


def run(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def fetch(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def refused(action, *words):
    """The action fails, and the error has these words."""
    try:
        action()
    except adbc_driver_manager.Error as error:
        for word in words:
            if word not in str(error):
                raise AssertionError(f"no {word!r} in {error}") from error
        return error
    raise AssertionError(f"nothing was refused; expected {words}")


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited for {what}")
        time.sleep(0.05)


def types():
    with connect() as connection:
        run(
            connection,
            "CREATE TABLE things (i2 int2, i4 int, i8 bigint, f4 real, f8 float8, n numeric(12,3), t text, b bytea, ok bool,"
            " d date, ts timestamp, tz timestamptz, u uuid, j jsonb, a int[], v interval)",
        )
        run(
            connection,
            "INSERT INTO things VALUES (1, -2, 3000000000, 0.5, 1.5, 12.345, 'häh', '\\x00ff', true, '2026-02-28',"
            " '2026-01-02 03:04:05.6789', '2026-01-02 03:04:05+00', '12345678-1234-5678-1234-567812345678',"
            " '{\"k\": [1, 2.5, null, \"x\"]}', '{1,NULL,3}', '1 month 2 days 3 seconds')",
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM things")
            table = cursor.fetch_arrow_table()
        row = table.to_pylist()[0]
        check(row["i2"], 1)
        check(row["i8"], 3_000_000_000)
        check(row["n"], Decimal("12.345"))
        check(row["t"], "häh")
        check(row["b"], b"\x00\xff")
        check(row["ok"], True)
        check(row["d"], date(2026, 2, 28))
        check(row["ts"], datetime(2026, 1, 2, 3, 4, 5, 678900))
        check(row["tz"], datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
        check(UUID(bytes=row["u"]) if isinstance(row["u"], bytes) else row["u"], UUID("12345678-1234-5678-1234-567812345678"))
        check(json.loads(row["j"]), {"k": [1, 2.5, None, "x"]})
        check(row["a"], [1, None, 3])
        check((row["v"].months, row["v"].days, row["v"].nanoseconds), (1, 2, 3_000_000_000))
        check(fetch(connection, "SELECT 1 WHERE false"), [])
        # What came from here goes back in, unchanged.
        with connection.cursor() as cursor:
            check(cursor.adbc_ingest("things", table, mode="append"), 1)
            check(cursor.adbc_ingest("copy of things", table, mode="create"), 1)
        check(fetch(connection, "SELECT count(*) FROM (SELECT DISTINCT * FROM things)"), [(1,)])
        check(fetch(connection, 'SELECT count(*) FROM (SELECT * FROM things UNION SELECT * FROM "copy of things")'), [(1,)])


def parameters():
    with connect("ann") as connection:
        check(fetch(connection, "SELECT current_user"), [("ann",)])
        run(connection, "CREATE TABLE numbers (id int NOT NULL, name text, price numeric(10,2), at timestamptz)")
        noon = datetime(2026, 5, 1, 12, 0, tzinfo=timezone.utc)
        run(connection, "INSERT INTO numbers VALUES ($1, $2, $3, $4)", (1, "one", 1.5, noon))
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO numbers VALUES ($1, $2, $3, $4)", [(n, f"n{n}", n / 4, noon) for n in range(2, 102)])
            check(cursor.rowcount, 100, "executemany")
            cursor.executemany("UPDATE numbers SET name = $2 WHERE id = $1", [(2, "two"), (3, None), (999, "x")])
            check(cursor.rowcount, 2, "update")
        check(fetch(connection, "SELECT count(*), sum(price) FROM numbers"), [(101, Decimal("1289.00"))])
        query = "SELECT name, price FROM numbers WHERE id = $1 AND at > $2"
        with connection.cursor() as cursor:
            # The same prepared statement with other values.
            for number, expected in [(1, [("one", Decimal("1.50"))]), (3, [(None, Decimal("0.75"))]), (7777, [])]:
                cursor.execute(query, (number, "2026-01-01 00:00:00+00"))
                check(cursor.fetchall(), expected)
            # Many rows of parameters: the results one after the other.
            cursor.execute("SELECT name FROM numbers WHERE id = $1", pa.record_batch([pa.array([1, 2, 888, 4])], names=["id"]))
            check(cursor.fetchall(), [("one",), ("two",), ("n4",)])
            schema = cursor.adbc_prepare("SELECT * FROM numbers WHERE id = $1 AND name = $2 AND price < $3")
            check([field.type for field in schema], [pa.int32(), pa.string(), pa.decimal128(38, 18)])
        refused(lambda: fetch(connection, query, ("x", noon)), "invalid input syntax for type integer", "22P02", "parameter $1")
        refused(lambda: fetch(connection, query, (1.5, noon)), "parameter $1", "1.5")
        refused(lambda: fetch(connection, query, (1,)), "wrong number of parameters", "Expected 2")
        refused(lambda: fetch(connection, query), "there is no parameter $1")
        refused(lambda: run(connection, "INSERT INTO numbers VALUES ($1)", (None,)), "violates not-null constraint", "23502")
        # A set of rows goes in as a whole or not at all.
        with connection.cursor() as cursor:
            refused(lambda: cursor.executemany("INSERT INTO numbers (id, price) VALUES ($1, $2)", [(5000, 1.0), (5001, 1e12)]), "22003")
        check(fetch(connection, "SELECT count(*) FROM numbers WHERE id >= 5000"), [(0,)])
        # What a write returns, and how many rows for who does not want them.
        insert = "INSERT INTO numbers (id, name) VALUES ($1, $2), (6001, 'x') RETURNING name, id + 1 AS next"
        check(fetch(connection, insert, (6000, "six")), [("six", 6001), ("x", 6002)])
        with connection.cursor() as cursor:
            cursor.executemany("DELETE FROM numbers WHERE id = $1 RETURNING name", [(6000,), (6001,), (6002,)])
            check(cursor.rowcount, 2, "delete")
        check(fetch(connection, "SELECT count(*) FROM numbers WHERE id >= 6000"), [(0,)])


def errors():
    with connect() as connection:
        error = refused(lambda: fetch(connection, "SELECT * FROM missing_relation"), "missing_relation", "42P01")
        check(error.status_code, adbc_driver_manager.AdbcStatusCode.NOT_FOUND)
        check(dict(error.details)[b"flowstone-sqlstate"], b"42P01")
        refused(lambda: fetch(connection, "SELEC 1"), "42601")
        refused(lambda: fetch(connection, "SELECT 1 / (i2 - 1) FROM things"), "division by zero", "22012")
        refused(lambda: run(connection, "COPY things FROM STDIN"), "COPY is not available")
        # Without a token nothing would remember it.
        refused(lambda: run(connection, "SET search_path = x"), "SET needs a session", "user name")
        check(fetch(connection, "SELECT 1"), [(1,)])
    with connect("bob") as connection:
        run(connection, "SET statement_timeout = '77s'")
        check(fetch(connection, "SHOW statement_timeout"), [("77s",)])


def transactions():
    with connect("ann") as other:
        run(other, "CREATE TABLE ledger (amount int)")
        with connect("ann", autocommit=False) as connection:
            run(connection, "INSERT INTO ledger VALUES (1)")
            run(connection, "INSERT INTO ledger VALUES (2)")
            check(fetch(other, "SELECT count(*) FROM ledger"), [(0,)], "before commit")
            connection.commit()
            check(fetch(other, "SELECT sum(amount) FROM ledger"), [(3,)], "after commit")
            run(connection, "INSERT INTO ledger VALUES (4)")
            connection.rollback()
            check(fetch(other, "SELECT sum(amount) FROM ledger"), [(3,)], "after rollback")
            # One time for all reads.
            check(fetch(connection, "SELECT sum(amount) FROM ledger"), [(3,)])
            run(other, "INSERT INTO ledger VALUES (10)")
            check(fetch(connection, "SELECT sum(amount) FROM ledger"), [(3,)], "the epoch of the transaction")
            connection.commit()
            check(fetch(connection, "SELECT sum(amount) FROM ledger"), [(13,)])
            connection.rollback()
            refused(lambda: fetch(connection, "SELECT * FROM nothing_there"), "42P01")
            refused(lambda: fetch(connection, "SELECT 2"), "transaction is aborted", "25P02")
            refused(connection.commit, "rolled back")


def ingest():
    with connect() as connection, connection.cursor() as cursor:
        rows = pa.table({"id": pa.array(range(3), pa.int64()), "name": ["a", None, "c"], "score": [0.5, 1.5, None]})
        check(cursor.adbc_ingest("scores", rows, mode="create"), 3)
        refused(lambda: cursor.adbc_ingest("scores", rows, mode="create"), "already exists", "42P07")
        check(cursor.adbc_ingest("scores", rows, mode="append"), 3)
        check(cursor.adbc_ingest("scores", rows, mode="create_append"), 3)
        check(fetch(connection, "SELECT count(*), count(name), sum(score) FROM scores"), [(9, 6, 6.0)])
        check(cursor.adbc_ingest("scores", rows.slice(0, 1), mode="replace"), 1)
        check(fetch(connection, "SELECT id, name, score FROM scores"), [(0, "a", 0.5)])
        refused(lambda: cursor.adbc_ingest("nowhere", rows, mode="append"), "does not exist", "42P01")
        # Columns by name, in any order, with defaults for those that do not come.
        run(connection, "CREATE TABLE defaulted (a int DEFAULT 7, b text, c numeric(6,2))")
        cursor.adbc_ingest("defaulted", pa.table({"c": [1.25], "b": ["x"]}), mode="append", db_schema_name="public")
        check(fetch(connection, "SELECT * FROM defaulted"), [(7, "x", Decimal("1.25"))])
        refused(lambda: cursor.adbc_ingest("defaulted", pa.table({"zzz": [1]}), mode="append"), "zzz")
        refused(lambda: cursor.adbc_ingest("defaulted", pa.table({"a": [2**40]}), mode="append"), 'column "a"', "out of range for type integer")
        # A stream of many batches, far more than one message.
        schema = pa.schema([("id", pa.int64()), ("text", pa.string())])

        def batches():
            for start in range(0, 400_000, 20_000):
                ids = pa.array(range(start, start + 20_000), pa.int64())
                yield pa.record_batch([ids, pa.array(["x" * 50] * 20_000)], schema=schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        check(cursor.adbc_ingest("many", reader, mode="create"), 400_000)
        check(fetch(connection, "SELECT count(*), sum(id), min(length(text)) FROM many"), [(400_000, 79_999_800_000, 50)])


def metadata():
    with connect("ann") as connection:
        run(connection, "CREATE VIEW cheap AS SELECT * FROM numbers WHERE price < 10")
        run(connection, "CREATE MATERIALIZED VIEW totals AS SELECT name, sum(price) AS total FROM numbers GROUP BY name")
        check(
            connection.adbc_get_table_types(),
            ["MATERIALIZED VIEW", "SOURCE", "SYSTEM VIEW", "TABLE", "VIEW"],
        )
        info = connection.adbc_get_info()
        check(info["vendor_name"], "Flowstone")
        schema = connection.adbc_get_table_schema("numbers", db_schema_filter="public")
        check(schema.names, ["id", "name", "price", "at"])
        check(schema.field("id").type, pa.int32())
        check(schema.field("id").nullable, False)
        check(schema.field("price").type, pa.decimal128(10, 2))
        check(schema.field("at").type, pa.timestamp("us", "UTC"))
        objects = connection.adbc_get_objects(depth="all", db_schema_filter="public").read_all().to_pylist()
        catalog = next(entry for entry in objects if entry["catalog_name"] == "materialize")
        public = next(entry for entry in catalog["catalog_db_schemas"] if entry["db_schema_name"] == "public")
        kinds = {table["table_name"]: table["table_type"] for table in public["db_schema_tables"]}
        check([kinds["numbers"], kinds["cheap"], kinds["totals"]], ["TABLE", "VIEW", "MATERIALIZED VIEW"])
        columns = next(table for table in public["db_schema_tables"] if table["table_name"] == "totals")["table_columns"]
        check([column["column_name"] for column in columns], ["name", "total"])
        only_views = connection.adbc_get_objects(depth="tables", table_types_filter=["VIEW"], table_name_filter="ch%").read_all().to_pylist()
        found = [table["table_name"] for entry in only_views for schema in entry["catalog_db_schemas"] for table in schema["db_schema_tables"]]
        check(found, ["cheap"])


def subscription():
    with connect() as writer, connect() as connection:
        sessions = "SELECT count(*) FROM mz_internal.mz_sessions"
        before = fetch(writer, sessions)[0][0]
        run(writer, "CREATE TABLE events (id int, what text)")
        run(writer, "INSERT INTO events VALUES (1, 'first')")
        cursor = connection.cursor()
        cursor.execute("SUBSCRIBE (SELECT id, what FROM events)")
        check([column[0] for column in cursor.description], ["mz_timestamp", "mz_diff", "id", "what"])
        first = cursor.fetchone()
        check(first[1:], (1, 1, "first"))
        last = first[0]
        for number in range(2, 12):
            run(writer, "INSERT INTO events VALUES ($1, 'more')", (number,))
            row = cursor.fetchone()
            check(row[1:], (1, number, "more"))
            if row[0] <= last:
                raise AssertionError(f"{row[0]} after {last}")
            last = row[0]
        run(writer, "DELETE FROM events WHERE id = 1")
        check(cursor.fetchone()[1:], (-1, 1, "first"))
        check(fetch(writer, sessions), [(before + 1,)])
        cursor.adbc_cancel()
        refused(lambda: [cursor.fetchone() for _ in range(10)], "")
        cursor.close()
        until(lambda: fetch(writer, sessions) == [(before,)], "the subscription to end")


def cancel():
    with connect() as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT a, b, c FROM generate_series(1, 1000) a, generate_series(1, 1000) b, generate_series(1, 1000) c")
        cursor.fetchone()
        canceller = threading.Timer(0.2, cursor.adbc_cancel)
        canceller.start()
        started = time.monotonic()

        def drain():
            while cursor.fetchmany(100_000):
                if time.monotonic() - started > 60:
                    raise AssertionError("the query goes on after it was cancelled")

        refused(drain, "")
        canceller.join()
        cursor.close()
        check(fetch(connection, "SELECT 1"), [(1,)])


for test in (types, parameters, errors, transactions, ingest, metadata, subscription, cancel):
    started = time.monotonic()
    try:
        test()
    except BaseException as error:
        print(f"{test.__name__}: {error}", file=sys.stderr)
        raise
    print(f"{test.__name__}: ok ({time.monotonic() - started:.1f} s)")
