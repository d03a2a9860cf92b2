"""pyarrow.flight, which knows nothing of Flight SQL, against a node: plain SQL, Flight SQL's messages, sessions, ingest, subscriptions, cancel.

Usage: pyarrow_flight.py HOST:PORT
"""

import sys
import threading
import time
from uuid import UUID

import pyarrow as pa
import pyarrow.flight as flight

address = sys.argv[1]


# Protocol buffers by hand: length-delimited fields, and numbers.
def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def command(name, *fields):
    message = b"".join(field(number, value) for number, value in fields)
    return field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}") + field(2, message)


def read_message(data):
    """The length-delimited fields of a message, by number."""
    fields, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 2:
            length = number()
            fields[tag >> 3] = data[at : at + length]
            at += length
        else:
            fields[tag >> 3] = number()
    return fields


def connect():
    return flight.connect(f"grpc://{address}")


def check(got, expected, what=""):
    if got != expected:
        raise AssertionError(f"{what}: got {got!r}, expected {expected!r}")


def refused(action, *words):
    try:
        action()
    except (pa.ArrowException, flight.FlightError, KeyError) as error:
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


def open_stream(client, cmd, options=None):
    info = client.get_flight_info(flight.FlightDescriptor.for_command(cmd), options)
    return client.do_get(info.endpoints[0].ticket, options)


def query(client, cmd, options=None):
    return open_stream(client, cmd, options).read_all()


def rows(client, cmd, options=None):
    return list(zip(*(column.to_pylist() for column in query(client, cmd, options).columns)))


def statement(sql):
    return command("CommandStatementQuery", (1, sql))


def plain_sql():
    with connect() as client:
        check(rows(client, b"SELECT 1 AS a, 'x' AS b"), [(1, "x")])
        check(rows(client, statement("SELECT 2 AS a")), [(2,)])
        # A ticket may be the text as well.
        check(client.do_get(flight.Ticket(b"SELECT 3 AS a")).read_all().to_pylist(), [{"a": 3}])
        # What gives no rows is done when it is asked for; its tag is beside the empty result.
        info = client.get_flight_info(flight.FlightDescriptor.for_command(b"CREATE TABLE plain (id int, doc jsonb, u uuid)"))
        check(info.app_metadata, b"CREATE TABLE")
        check(client.do_get(info.endpoints[0].ticket).read_all().num_rows, 0)
        client.do_get(flight.Ticket(b"INSERT INTO plain VALUES (1, '{\"b\":1,\"a\":2}', '12345678-1234-5678-1234-567812345678')")).read_all()
        table = query(client, b"SELECT * FROM plain")
        check(table.num_rows, 1)
        check(table.schema.field("doc").type in (pa.json_(), pa.string()), True, "the type of jsonb")
        check(table.column("doc").to_pylist(), ['{"a": 2, "b": 1}'])
        check(table.column("u").to_pylist(), [UUID("12345678-1234-5678-1234-567812345678")])
        schema = client.get_schema(flight.FlightDescriptor.for_command(b"SELECT id FROM plain")).schema
        check(schema.field("id").type, pa.int32())
        refused(lambda: query(client, b"SELECT * FROM missing_relation"), "missing_relation", "SQLSTATE 42P01")
        refused(lambda: query(client, b"SELECT 1; SELECT 2"), "multiple commands", "42601")
        refused(lambda: query(client, b"SELECT $1::int"), "there is no parameter $1")
        refused(lambda: query(client, b"\xff\xfe"), "neither a message of Flight SQL nor SQL text")
        refused(lambda: client.do_get(flight.Ticket(command("TicketStatementQuery", (1, b"nonsense")))).read_all(), "none of this node's")


def sessions():
    with connect() as client:
        header = client.authenticate_basic_token("carol", "whatever")
        options = flight.FlightCallOptions(headers=[header])
        check(rows(client, b"SELECT current_user", options), [("carol",)])
        query(client, b"CREATE SCHEMA other", options)
        query(client, b"SET search_path = other", options)
        check(rows(client, b"SHOW search_path", options), [("other",)])
        query(client, b"CREATE TABLE here (id int)", options)
        check(rows(client, b"SELECT count(*) FROM other.here"), [(0,)])
        # A block of SQL, in a session.
        query(client, b"BEGIN", options)
        query(client, b"INSERT INTO here VALUES (1)", options)
        check(rows(client, b"SELECT count(*) FROM other.here"), [(0,)])
        query(client, b"COMMIT", options)
        check(rows(client, b"SELECT count(*) FROM other.here"), [(1,)])
        # Another session does not share its settings, nor does a call without one.
        second = flight.FlightCallOptions(headers=[client.authenticate_basic_token("carol", "")])
        check(rows(client, b"SHOW search_path", second) == [("other",)], False)
        refused(lambda: query(client, b"BEGIN"), "BEGIN needs a session")
        # A transaction of Flight SQL's starts with the session's settings.
        result = list(client.do_action(flight.Action("BeginTransaction", command("ActionBeginTransactionRequest")), options))
        transaction = read_message(read_message(result[0].body.to_pybytes())[2])[1]
        check(rows(client, command("CommandStatementQuery", (1, "SELECT count(*) FROM here"), (2, transaction)), options), [(1,)])
        refused(lambda: query(client, command("CommandStatementQuery", (1, "COMMIT"), (2, transaction)), options), "not begun or ended by a statement")
        refused(lambda: query(client, command("CommandStatementQuery", (1, "SELECT 1"), (2, transaction)), second), "transaction does not exist")
        # It is the transaction's own way to fail; it ends all the same.
        list(client.do_action(flight.Action("EndTransaction", command("ActionEndTransactionRequest", (1, transaction), (2, 2))), options))
        refused(lambda: query(client, command("CommandStatementQuery", (1, "SELECT 1"), (2, transaction)), options), "transaction does not exist")
        list(client.do_action(flight.Action("CloseSession", b""), options))
        refused(lambda: query(client, b"SELECT 1", options), "session does not exist")
        wrong = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer nonsense")])
        refused(lambda: query(client, b"SELECT 1", wrong), "session does not exist")


def prepared():
    with connect() as client:
        body = command("ActionCreatePreparedStatementRequest", (1, "SELECT id, $1::text AS given FROM plain WHERE id = $2"))
        result = list(client.do_action(flight.Action("CreatePreparedStatement", body)))
        fields = read_message(read_message(result[0].body.to_pybytes())[2])
        handle = fields[1]
        check(pa.ipc.read_schema(pa.py_buffer(fields[2])).names, ["id", "given"])
        check([entry.type for entry in pa.ipc.read_schema(pa.py_buffer(fields[3]))], [pa.string(), pa.int32()])
        cmd = command("CommandPreparedStatementQuery", (1, handle))
        refused(lambda: query(client, cmd), "there is no parameter $1")

        def bind(batch):
            writer, reader = client.do_put(flight.FlightDescriptor.for_command(cmd), batch.schema)
            with writer:
                writer.write_batch(batch)
                writer.done_writing()
                check(read_message(reader.read().to_pybytes())[1], handle)

        bind(pa.record_batch([pa.array(["a"]), pa.array([1], pa.int64())], names=["x", "y"]))
        check(rows(client, cmd), [(1, "a")])
        # A ticket keeps the values that were bound when it was given.
        info = client.get_flight_info(flight.FlightDescriptor.for_command(cmd))
        bind(pa.record_batch([pa.array(["b"]), pa.array([1.0])], names=["x", "y"]))
        check(client.do_get(info.endpoints[0].ticket).read_all().to_pylist(), [{"id": 1, "given": "a"}])
        check(rows(client, cmd), [(1, "b")])
        list(client.do_action(flight.Action("ClosePreparedStatement", command("ActionClosePreparedStatementRequest", (1, handle)))))
        refused(lambda: query(client, cmd), "prepared statement does not exist")


def put():
    with connect() as client:
        table = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["a", "b", None]})
        modes = field(1, 1) + field(2, 1)
        descriptor = flight.FlightDescriptor.for_command(command("CommandStatementIngest", (1, modes), (2, "ingested"), (3, "public")))
        writer, reader = client.do_put(descriptor, table.schema)
        with writer:
            writer.write_table(table)
            writer.done_writing()
            check(read_message(reader.read().to_pybytes())[1], 3)
        check(rows(client, b"SELECT count(*), count(name) FROM ingested"), [(3, 2)])
        # A batch beyond the usual four megabytes of a message.
        wide = pa.record_batch([pa.array(range(10), pa.int64()), pa.array(["y" * 2_000_000] * 10)], names=["id", "name"])
        modes = field(1, 2) + field(2, 2)
        descriptor = flight.FlightDescriptor.for_command(command("CommandStatementIngest", (1, modes), (2, "ingested")))
        writer, reader = client.do_put(descriptor, wide.schema)
        with writer:
            writer.write_batch(wide)
            writer.done_writing()
            check(read_message(reader.read().to_pybytes())[1], 10)
        check(rows(client, b"SELECT max(length(name)) FROM ingested"), [(2_000_000,)])
        check(query(client, b"SELECT name FROM ingested WHERE length(name) > 1000").nbytes > 20_000_000, True)
        # Within a transaction it is there with the rest of it, or not at all.
        modes = field(1, 2) + field(2, 2)
        for end, count in ((2, 13), (1, 16)):
            result = list(client.do_action(flight.Action("BeginTransaction", command("ActionBeginTransactionRequest"))))
            transaction = read_message(read_message(result[0].body.to_pybytes())[2])[1]
            descriptor = flight.FlightDescriptor.for_command(command("CommandStatementIngest", (1, modes), (2, "ingested"), (6, transaction)))
            writer, reader = client.do_put(descriptor, table.schema)
            with writer:
                writer.write_table(table)
                writer.done_writing()
                check(read_message(reader.read().to_pybytes())[1], 3)
            check(rows(client, b"SELECT count(*) FROM ingested"), [(13,)])
            list(client.do_action(flight.Action("EndTransaction", command("ActionEndTransactionRequest", (1, transaction), (2, end)))))
            check(rows(client, b"SELECT count(*) FROM ingested"), [(count,)])
        descriptor = flight.FlightDescriptor.for_command(command("CommandStatementUpdate", (1, "DELETE FROM ingested WHERE id > 5")))
        writer, reader = client.do_put(descriptor, pa.schema([]))
        with writer:
            writer.done_writing()
            check(read_message(reader.read().to_pybytes())[1], 4)


def metadata():
    with connect() as client:
        check(("materialize",) in rows(client, command("CommandGetCatalogs")), True)
        schemas = rows(client, command("CommandGetDbSchemas", (2, "pub%")))
        check(("materialize", "public") in schemas, True)
        check(all(schema.startswith("pub") for _, schema in schemas), True)
        check([kind for (kind,) in rows(client, command("CommandGetTableTypes"))], ["MATERIALIZED VIEW", "SOURCE", "SYSTEM VIEW", "TABLE", "VIEW"])
        found = query(client, command("CommandGetTables", (2, "public"), (3, "ingest%"), (4, "TABLE"), (5, 1))).to_pylist()
        check([table["table_name"] for table in found], ["ingested"])
        check(pa.ipc.read_schema(pa.py_buffer(found[0]["table_schema"])).names, ["id", "name"])
        check(rows(client, command("CommandGetTables", (1, "no such catalog"))), [])
        system = rows(client, command("CommandGetTables", (4, "SYSTEM VIEW")))
        check(("materialize", "pg_catalog", "pg_class", "SYSTEM VIEW") in system, True)
        # What is listed can be queried by its full name.
        for catalog, schema, name, _ in system[:10]:
            query(client, f'SELECT * FROM "{catalog}"."{schema}"."{name}" LIMIT 0'.encode())
        for name in ("CommandGetPrimaryKeys", "CommandGetExportedKeys", "CommandGetImportedKeys"):
            check(query(client, command(name, (3, "ingested"))).num_rows, 0)
        check(query(client, command("CommandGetCrossReference", (3, "ingested"), (6, "ingested"))).num_columns, 13)
        check(query(client, command("CommandGetSqlInfo", (1, 0))).to_pylist(), [{"info_name": 0, "value": "Flowstone"}])
        check(query(client, command("CommandGetSqlInfo")).num_rows > 40, True)
        check({row["type_name"] for row in query(client, command("CommandGetXdbcTypeInfo")).to_pylist()} >= {"integer", "jsonb", "uuid"}, True)
        check("CancelFlightInfo" in [action.type for action in client.list_actions()], True)
        refused(lambda: query(client, command("CommandStatementSubstraitPlan")), "CommandStatementSubstraitPlan")


def sessions_open(client):
    """Open sessions besides the one that asks: a stream without a token has one of its own."""
    return rows(client, b"SELECT count(*) - 1 FROM mz_internal.mz_sessions")[0][0]


def subscription():
    with connect() as client:
        before = sessions_open(client)
        query(client, b"CREATE TABLE ticks (n int)")
        stream = open_stream(client, b"SUBSCRIBE ticks WITH (PROGRESS)")
        check(stream.schema.names[:3], ["mz_timestamp", "mz_progressed", "mz_diff"])
        seen = []

        def read_until(number):
            deadline = time.monotonic() + 30
            while number not in seen:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{number} did not come; seen {seen}")
                seen.extend(row["n"] for row in stream.read_chunk().data.to_pylist() if not row["mz_progressed"])

        for number in range(20):
            query(client, f"INSERT INTO ticks VALUES ({number})".encode())
            read_until(number)
        check(seen, list(range(20)))
        check(sessions_open(client), before + 1)
        # A client that cancels ends it,
        stream.cancel()
        until(lambda: sessions_open(client) == before, "the cancelled subscription to end")
    # and so does one that goes away.
    leaver, client = connect(), connect()
    stream = open_stream(leaver, b"SUBSCRIBE ticks")
    stream.read_chunk()
    check(sessions_open(client), before + 1)
    stream.cancel()
    del stream
    leaver.close()
    until(lambda: sessions_open(client) == before, "the abandoned subscription to end")
    client.close()


def cancel():
    with connect() as client:

        def cancel_query(info):
            """The status of the cancellation: 1 is cancelled, 3 is nothing to cancel."""
            result = list(client.do_action(flight.Action("CancelFlightInfo", field(1, info.serialize()))))
            return read_message(result[0].body.to_pybytes())[1]

        descriptor = flight.FlightDescriptor.for_command(b"SUBSCRIBE ticks")
        info = client.get_flight_info(descriptor)
        check(cancel_query(info), 3)
        stream = client.do_get(info.endpoints[0].ticket)
        stream.read_chunk()
        other = open_stream(client, b"SELECT g FROM generate_series(1, 100000) AS g")
        canceller = threading.Timer(0.2, lambda: cancel_query(info))
        canceller.start()
        refused(lambda: [stream.read_chunk() for _ in range(10)], "canceling statement due to user request")
        canceller.join()
        # Nothing else was cancelled.
        check(other.read_all().num_rows, 100_000)
        # A query that computes and sends nothing for long.
        sql = b"SELECT count(*) FROM generate_series(1, 1000) a, generate_series(1, 1000) b, generate_series(1, 1000) c"
        info = client.get_flight_info(flight.FlightDescriptor.for_command(sql))
        stream = client.do_get(info.endpoints[0].ticket)
        canceller = threading.Timer(0.5, lambda: cancel_query(info))
        canceller.start()
        started = time.monotonic()
        refused(stream.read_chunk, "canceling statement due to user request")
        check(time.monotonic() - started < 30, True, "the cancelled query went on")
        canceller.join()


for test in (plain_sql, sessions, prepared, put, metadata, subscription, cancel):
    started = time.monotonic()
    try:
        test()
    except BaseException as error:
        print(f"{test.__name__}: {error}", file=sys.stderr)
        raise
    print(f"{test.__name__}: ok ({time.monotonic() - started:.1f} s)")
