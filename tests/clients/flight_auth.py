"""Who may call over Arrow Flight: pyarrow and ADBC against a node with TLS and passwords.

Usage: flight_auth.py PORT CA_FILE OTHER_CA_FILE PASSWORD

The node knows `materialize` with PASSWORD, `ada` with "lovelace", and `readers` with "many", who may not log in.
"""

import base64
import sys

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as flight

port, ca_file, other_ca_file, password = sys.argv[1:]
with open(ca_file, "rb") as file:
    ca = file.read()
with open(other_ca_file, "rb") as file:
    other_ca = file.read()

CREATE = b"CREATE TABLE refused (a int)"


def check(got, expected):
    if got != expected:
        raise AssertionError(f"got {got!r}, expected {expected!r}")


def refused(kind, action, *words):
    try:
        action()
    except kind as error:
        for word in words:
            if word not in str(error):
                raise AssertionError(f"no {word!r} in {error}") from error
        return
    raise AssertionError(f"nothing was refused; expected {words}")


def connect(roots=ca):
    return flight.FlightClient(f"grpc+tls://localhost:{port}", tls_root_certs=roots)


def with_header(value):
    return flight.FlightCallOptions(headers=[(b"authorization", value)])


def basic(user, secret):
    return with_header(b"Basic " + base64.b64encode(f"{user}:{secret}".encode()))


def query(client, sql, options=None):
    info = client.get_flight_info(flight.FlightDescriptor.for_command(sql), options)
    return client.do_get(info.endpoints[0].ticket, options).read_all()


def user_of(client, options):
    return query(client, b"SELECT current_user", options).column(0).to_pylist()


def tokens():
    with connect() as client:
        for user, secret in [("materialize", password), ("ada", "lovelace")]:
            token = flight.FlightCallOptions(headers=[client.authenticate_basic_token(user, secret)])
            check(user_of(client, token), [user])
        query(client, b"SET statement_timeout = '77s'", token)
        check(query(client, b"SHOW statement_timeout", token).column(0).to_pylist(), ["77s"])
        for user, secret in [("ada", "byron"), ("nobody", "lovelace"), ("materialize", "")]:
            words = f'password authentication failed for user "{user}" (SQLSTATE 28P01)'
            refused(flight.FlightUnauthenticatedError, lambda: client.authenticate_basic_token(user, secret), words)
        refused(flight.FlightUnauthorizedError, lambda: client.authenticate_basic_token("readers", "many"), "not permitted to log in")
        # What is not said before the right password.
        refused(flight.FlightUnauthenticatedError, lambda: client.authenticate_basic_token("readers", "few"), "28P01")
        list(client.do_action(flight.Action("CloseSession", b""), token))
        refused(flight.FlightUnauthenticatedError, lambda: query(client, b"SELECT 1", token), "session does not exist")


def calls():
    with connect() as client:
        check(user_of(client, basic("ada", "lovelace")), ["ada"])
        unknown = with_header(b"Bearer 12345678-1234-4234-8234-567812345678")
        for options, words in [
            (None, "a user and a password are required (SQLSTATE 28000)"),
            (basic("ada", "byron"), "password authentication failed"),
            (unknown, "session does not exist"),
            (with_header(b"Digest x"), "neither Basic nor Bearer"),
        ]:
            table = pa.table({"a": [1]})

            def put():
                descriptor = flight.FlightDescriptor.for_command(CREATE)
                writer, reader = client.do_put(descriptor, table.schema, options)
                with writer:
                    writer.done_writing()
                    reader.read()

            # pyarrow gives get_schema's errors a type of less meaning.
            refused(
                OSError,
                lambda: client.get_schema(flight.FlightDescriptor.for_command(CREATE), options),
                "unauthenticated",
                words,
            )
            for call in [
                lambda: query(client, CREATE, options),
                lambda: client.do_get(flight.Ticket(CREATE), options).read_all(),
                lambda: list(client.do_action(flight.Action("BeginTransaction", b""), options)),
                lambda: list(client.list_actions(options)),
                put,
            ]:
                refused(flight.FlightUnauthenticatedError, call, words)


def transactions_are_their_users():
    name = b"type.googleapis.com/arrow.flight.protocol.sql.ActionBeginTransactionRequest"
    begin = flight.Action("BeginTransaction", b"\x0a" + bytes([len(name)]) + name)
    with connect() as client:
        # The last sixteen bytes of the answer are the identifier.
        transaction = list(client.do_action(begin, basic("ada", "lovelace")))[0].body.to_pybytes()[-16:]

        def select():
            sql = b"SELECT current_user"
            message = b"\x0a" + bytes([len(sql)]) + sql + b"\x12\x10" + transaction
            name = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
            return b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(message)]) + message

        check(query(client, select(), basic("ada", "lovelace")).column(0).to_pylist(), ["ada"])
        refused(pa.lib.ArrowKeyError, lambda: query(client, select(), basic("materialize", password)), "transaction does not exist")


def adbc():
    def open_connection(user, secret, roots=ca):
        options = {"username": user, "password": secret, "adbc.flight.sql.client_option.tls_root_certs": roots.decode()}
        return flightsql.connect(f"grpc+tls://localhost:{port}", db_kwargs=options, autocommit=True)

    with open_connection("ada", "lovelace") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        check(cursor.fetchall(), [("ada",)])
        cursor.adbc_ingest("ingested", pa.table({"a": [1, 2]}), mode="create")
        cursor.execute("SELECT sum(a)::int FROM ingested")
        check(cursor.fetchall(), [(3,)])

    def attempt(user, secret, roots=ca):
        with open_connection(user, secret, roots) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    try:
        attempt("ada", "byron")
    except adbc_driver_manager.Error as error:
        check(error.status_code, adbc_driver_manager.AdbcStatusCode.UNAUTHENTICATED)
    else:
        raise AssertionError("a wrong password was accepted")
    refused(adbc_driver_manager.Error, lambda: attempt("ada", "lovelace", other_ca), "certificate")


def transport():
    # In the clear nothing is looked at, not even the password.
    with flight.FlightClient(f"grpc://localhost:{port}") as client:
        refused(flight.FlightUnavailableError, lambda: query(client, CREATE, basic("materialize", password)))
    with connect(other_ca) as client:
        refused(flight.FlightUnavailableError, lambda: query(client, CREATE, basic("materialize", password)))


for test in (tokens, calls, transactions_are_their_users, adbc, transport):
    try:
        test()
    except BaseException as error:
        print(f"{test.__name__}: {error}", file=sys.stderr)
        raise
    print(f"{test.__name__}: ok")
