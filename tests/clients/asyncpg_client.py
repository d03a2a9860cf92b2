"""asyncpg against a node: binary parameters and results, prepared statements, cursors, transactions, COPY, introspection of types, pools, cancel."""

import asyncio
import io
import json
import sys
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import asyncpg

port = int(sys.argv[1])
options = {"host": "127.0.0.1", "port": port, "user": "materialize", "database": "materialize"}


async def types(connection):
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    await connection.execute(
        "CREATE TABLE ap (i2 int2, i4 int, i8 bigint, f4 real, f8 float8, n numeric(12,3), t text, v varchar(10), b bytea, ok bool,"
        " d date, tm time, ts timestamp, tz timestamptz, iv interval, u uuid, j jsonb, a int[], ta text[])"
    )
    row = (
        1,
        -2,
        3_000_000_000,
        0.5,
        1.5,
        Decimal("12.345"),
        "häh'\"\\",
        "short",
        b"\x00\xff",
        True,
        date(2026, 2, 28),
        time(1, 2, 3, 456000),
        datetime(2026, 1, 2, 3, 4, 5, 678900),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        timedelta(days=3, hours=4, seconds=5.5),
        uuid.UUID("12345678-1234-5678-1234-567812345678"),
        {"k": [1, 2.5, None, "x"]},
        [1, None, 3],
        ["a,b", 'c"d', None, ""],
    )
    marks = ", ".join(f"${number + 1}" for number in range(len(row)))
    assert await connection.execute(f"INSERT INTO ap VALUES ({marks})", *row) == "INSERT 0 1"
    got = tuple(await connection.fetchrow("SELECT * FROM ap"))
    assert got == row, (got, row)
    nulls = await connection.fetchrow("SELECT NULL::int AS a, NULL::text[] AS b, $1::jsonb AS c", None)
    assert dict(nulls) == {"a": None, "b": None, "c": None}, nulls


async def statements(connection):
    await connection.executemany("INSERT INTO ap (i4, t) VALUES ($1, $2)", [(number, f"n{number}") for number in range(100, 200)])
    statement = await connection.prepare("SELECT i4, t FROM ap WHERE i4 = ANY($1::int[]) ORDER BY i4")
    assert [parameter.name for parameter in statement.get_parameters()] == ["int4[]"], statement.get_parameters()
    assert [(column.name, column.type.name) for column in statement.get_attributes()] == [("i4", "int4"), ("t", "text")]
    for first in (100, 150, 198):
        assert [row["i4"] for row in await statement.fetch([first, first + 1])] == [first, first + 1]
    assert await connection.fetchval("SELECT count(*) FROM ap WHERE t LIKE $1", "n%") == 100
    # Types that the driver does not know it looks up in pg_type.
    assert await connection.fetchval("SELECT mz_now()") is not None
    assert await connection.fetchval("SELECT current_schemas(true)") == ["mz_catalog", "pg_catalog", "public"]
    assert await connection.fetchval("SELECT 'pg_class'::regclass") is not None
    assert await connection.fetchval("SELECT 5::uint8") is not None


async def transactions(connection):
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO ap (i4) VALUES (-10)")
            raise KeyError
    except KeyError:
        pass
    async with connection.transaction(isolation="serializable", readonly=True):
        assert await connection.fetchval("SELECT count(*) FROM ap WHERE i4 = -10") == 0
        seen = [row["i4"] async for row in connection.cursor("SELECT i4 FROM ap WHERE i4 >= $1 ORDER BY i4", 100, prefetch=7)]
        assert seen == list(range(100, 200)), seen
    async with connection.transaction():
        await connection.execute("INSERT INTO ap (i4) VALUES (-11)")
    assert await connection.fetchval("SELECT count(*) FROM ap WHERE i4 = -11") == 1


async def copies(connection):
    await connection.execute("CREATE TABLE ap_copied (id int, name text)")
    records = [(number, f"name\t{number}" if number % 2 else None) for number in range(3000)]
    assert await connection.copy_records_to_table("ap_copied", records=records) == "COPY 3000"
    await connection.copy_to_table("ap_copied", source=io.BytesIO(b"-1,x\n"), format="csv")
    out = io.BytesIO()
    await connection.copy_from_query("SELECT * FROM ap_copied WHERE id < $1 ORDER BY id", 2, output=out, format="csv")
    assert out.getvalue() == b"-1,x\n0,\n1,name\t1\n", out.getvalue()


async def errors(connection):
    try:
        await connection.fetch("SELECT nothing FROM ap")
        raise AssertionError("an unknown column was accepted")
    except asyncpg.UndefinedColumnError as error:
        assert error.position == "8", error.position
    try:
        await connection.fetch("SELECT $1::int / 0", 1)
        raise AssertionError("a division by zero was accepted")
    except asyncpg.DivisionByZeroError:
        pass
    # A timeout cancels the statement at the server, and the connection goes on.
    try:
        await connection.execute("SUBSCRIBE (SELECT 1 FROM ap WHERE i4 = -100)", timeout=0.3)
        raise AssertionError("a statement outlived its timeout")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("SELECT 1") == 1


async def main():
    connection = await asyncpg.connect(**options)
    version = connection.get_server_version()
    assert version.major >= 15, version
    for part in (types, statements, transactions, copies, errors):
        await part(connection)
    await connection.close()
    # A pool resets connections when they come back.
    async with asyncpg.create_pool(**options, min_size=2, max_size=4) as pool:
        values = await asyncio.gather(*(pool.fetchval("SELECT $1::int * 2", number) for number in range(40)))
        assert values == [number * 2 for number in range(40)]


asyncio.run(main())
print("ok")
