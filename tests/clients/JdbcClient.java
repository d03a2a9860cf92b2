import java.math.BigDecimal;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGobject;

/** The PostgreSQL JDBC driver against a node: metadata, prepared statements in text and binary, fetch size, batches, COPY, cancel, timeouts. */
public class JdbcClient {
    private static String url;

    public static void main(String[] arguments) throws Exception {
        url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/materialize";
        try (Connection connection = connect()) {
            prepare(connection);
            metadata(connection);
            types(connection);
            batches(connection);
            portions(connection);
            transactions(connection);
            copies(connection);
            errors(connection);
            interruptions(connection);
        }
        for (String mode : List.of("simple", "extendedForPrepared", "extendedCacheEverything")) {
            try (Connection connection = connect("preferQueryMode", mode)) {
                queryModes(connection);
            }
        }
        System.out.println("ok");
    }

    private static Connection connect(String... more) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", "materialize");
        properties.setProperty("ApplicationName", "jdbc test");
        for (int index = 0; index < more.length; index += 2) {
            properties.setProperty(more[index], more[index + 1]);
        }
        return DriverManager.getConnection(url, properties);
    }

    private static void check(Object got, Object expected) {
        boolean same = got instanceof Object[] && expected instanceof Object[]
                ? Arrays.deepEquals((Object[]) got, (Object[]) expected)
                : got instanceof byte[] && expected instanceof byte[] ? Arrays.equals((byte[]) got, (byte[]) expected) : java.util.Objects.equals(got, expected);
        if (!same) {
            throw new AssertionError("got " + show(got) + ", expected " + show(expected));
        }
    }

    private static String show(Object value) {
        return value instanceof Object[] ? Arrays.deepToString((Object[]) value) : String.valueOf(value);
    }

    private static void execute(Connection connection, String... statements) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            for (String text : statements) {
                statement.execute(text);
            }
        }
    }

    /** The rows of a result: the named columns, joined by `|`. */
    private static List<String> rows(ResultSet result, String... columns) throws SQLException {
        List<String> rows = new ArrayList<>();
        while (result.next()) {
            List<String> values = new ArrayList<>();
            for (String column : columns) {
                values.add(result.getString(column));
            }
            rows.add(String.join("|", values));
        }
        result.close();
        return rows;
    }

    private static void prepare(Connection connection) throws SQLException {
        execute(
                connection,
                "CREATE SCHEMA jdbc",
                "CREATE TABLE jdbc.orders (id int NOT NULL, item varchar(20), price numeric(10,2) DEFAULT 0, at timestamptz, tags text[])",
                "COMMENT ON TABLE jdbc.orders IS 'what people order'",
                "COMMENT ON COLUMN jdbc.orders.item IS 'which thing'",
                "CREATE VIEW jdbc.cheap AS SELECT id, item FROM jdbc.orders WHERE price < 10",
                "CREATE MATERIALIZED VIEW jdbc.totals AS SELECT item, sum(price) AS total FROM jdbc.orders GROUP BY item",
                "CREATE INDEX orders_id_item ON jdbc.orders (id, item)");
    }

    private static void metadata(Connection connection) throws SQLException {
        DatabaseMetaData meta = connection.getMetaData();
        check(meta.getDatabaseProductName(), "PostgreSQL");
        check(meta.getDatabaseMajorVersion() >= 15, true);
        check(meta.getUserName(), "materialize");
        check(connection.getCatalog(), "materialize");
        check(connection.getSchema(), "public");
        check(rows(meta.getCatalogs(), "TABLE_CAT").contains("materialize"), true);
        check(rows(meta.getSchemas(), "TABLE_SCHEM").containsAll(List.of("public", "jdbc", "pg_catalog", "information_schema")), true);
        check(rows(meta.getSchemas(null, "jd%"), "TABLE_SCHEM"), List.of("jdbc"));
        check(
                rows(meta.getTables(null, "jdbc", "%", null), "TABLE_NAME", "TABLE_TYPE", "REMARKS"),
                List.of("orders_id_item|INDEX|null", "totals|MATERIALIZED VIEW|null", "orders|TABLE|what people order", "cheap|VIEW|null"));
        check(rows(meta.getTables(null, "jdbc", "o%", new String[] {"TABLE"}), "TABLE_NAME"), List.of("orders"));
        check(rows(meta.getTables(null, "pg_catalog", "pg_class", null), "TABLE_NAME").size(), 1);
        check(
                rows(meta.getColumns(null, "jdbc", "orders", "%"), "COLUMN_NAME", "DATA_TYPE", "TYPE_NAME", "COLUMN_SIZE", "DECIMAL_DIGITS", "NULLABLE", "COLUMN_DEF", "ORDINAL_POSITION", "REMARKS"),
                List.of(
                        "id|4|int4|10|0|0|null|1|null",
                        "item|12|varchar|20|0|1|null|2|which thing",
                        "price|2|numeric|10|2|1|0|3|null",
                        "at|93|timestamptz|35|6|1|null|4|null",
                        "tags|2003|_text|2147483647|0|1|null|5|null"));
        check(rows(meta.getPrimaryKeys(null, "jdbc", "orders"), "COLUMN_NAME"), List.of());
        check(rows(meta.getPrimaryKeys(null, "auction", "bids"), "COLUMN_NAME", "KEY_SEQ", "PK_NAME"), List.of("id|1|bids_pkey"));
        check(
                rows(meta.getIndexInfo(null, "jdbc", "orders", false, false), "INDEX_NAME", "NON_UNIQUE", "ORDINAL_POSITION", "COLUMN_NAME"),
                List.of("orders_id_item|t|1|id", "orders_id_item|t|2|item"));
        check(rows(meta.getIndexInfo(null, "auction", "bids", true, false), "INDEX_NAME", "NON_UNIQUE", "COLUMN_NAME"), List.of("bids_pkey|f|id"));
        check(rows(meta.getBestRowIdentifier(null, "auction", "bids", DatabaseMetaData.bestRowSession, true), "COLUMN_NAME"), List.of("id"));
        check(rows(meta.getImportedKeys(null, "jdbc", "orders"), "FKCOLUMN_NAME"), List.of());
        check(rows(meta.getExportedKeys(null, "jdbc", "orders"), "FKCOLUMN_NAME"), List.of());
        check(rows(meta.getCrossReference(null, "jdbc", "orders", null, "jdbc", "totals"), "FKCOLUMN_NAME"), List.of());
        List<String> types = rows(meta.getTypeInfo(), "TYPE_NAME", "DATA_TYPE");
        check(types.containsAll(List.of("int4|4", "text|12", "numeric|2", "timestamptz|93", "jsonb|1111", "uuid|1111", "bool|-7", "_int4|2003")), true);
        check(rows(meta.getTableTypes(), "TABLE_TYPE").contains("MATERIALIZED VIEW"), true);
        check(rows(meta.getTablePrivileges(null, "jdbc", "orders"), "GRANTEE", "PRIVILEGE").contains("materialize|SELECT"), true);
        check(rows(meta.getColumnPrivileges(null, "jdbc", "orders", "id"), "GRANTEE", "PRIVILEGE").contains("materialize|SELECT"), true);
        check(rows(meta.getFunctions(null, "pg_catalog", "array_in"), "FUNCTION_NAME"), List.of("array_in"));
        rows(meta.getProcedures(null, null, "%"), "PROCEDURE_NAME");
        rows(meta.getProcedureColumns(null, null, "%", "%"), "COLUMN_NAME");
        rows(meta.getFunctionColumns(null, "pg_catalog", "array_in", "%"), "COLUMN_NAME");
        check(rows(meta.getUDTs(null, "jdbc", "%", null), "TYPE_NAME"), List.of());
        rows(meta.getClientInfoProperties(), "NAME");
        check(rows(meta.getVersionColumns(null, "jdbc", "orders"), "COLUMN_NAME"), List.of("ctid"));
        check(meta.getMaxColumnNameLength() > 0, true);
        check(meta.getSQLKeywords().isEmpty(), false);
        check(meta.getTimeDateFunctions().isEmpty(), false);
        try (Statement statement = connection.createStatement();
                ResultSet result = statement.executeQuery("SELECT id, item, price + 1 AS more FROM jdbc.orders")) {
            ResultSetMetaData columns = result.getMetaData();
            check(columns.getColumnTypeName(1), "int4");
            check(columns.getColumnName(2), "item");
            check(columns.getPrecision(2), 20);
            check(columns.getColumnClassName(3), "java.math.BigDecimal");
            check(columns.isNullable(3), ResultSetMetaData.columnNullableUnknown);
        }
        check(connection.isValid(5), true);
    }

    private static void types(Connection connection) throws SQLException {
        execute(
                connection,
                "CREATE TABLE jdbc.types (i2 int2, i4 int, i8 bigint, f4 real, f8 float8, n numeric(12,3), t text, b bytea, ok bool,"
                        + " d date, ts timestamp, tz timestamptz, u uuid, j jsonb, a int[], ta text[])");
        UUID uuid = UUID.fromString("12345678-1234-5678-1234-567812345678");
        OffsetDateTime at = OffsetDateTime.of(2026, 1, 2, 3, 4, 5, 678_900_000, ZoneOffset.UTC);
        PGobject json = new PGobject();
        json.setType("jsonb");
        json.setValue("{\"k\": [1, null]}");
        String marks = String.join(", ", java.util.Collections.nCopies(16, "?"));
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc.types VALUES (" + marks + ")")) {
            insert.setShort(1, (short) 1);
            insert.setInt(2, -2);
            insert.setLong(3, 3_000_000_000L);
            insert.setFloat(4, 0.5f);
            insert.setDouble(5, 1.5);
            insert.setBigDecimal(6, new BigDecimal("12.345"));
            insert.setString(7, "häh'\"\\ ?");
            insert.setBytes(8, new byte[] {0, -1});
            insert.setBoolean(9, true);
            insert.setObject(10, LocalDate.of(2026, 2, 28));
            insert.setTimestamp(11, Timestamp.valueOf("2026-01-02 03:04:05.6789"));
            insert.setObject(12, at);
            insert.setObject(13, uuid);
            insert.setObject(14, json);
            insert.setArray(15, connection.createArrayOf("int4", new Integer[] {1, null, 3}));
            insert.setArray(16, connection.createArrayOf("text", new String[] {"a,b", null, ""}));
            check(insert.executeUpdate(), 1);
            for (int column = 1; column <= 16; column += 1) {
                insert.setNull(column, column == 15 || column == 16 ? Types.ARRAY : Types.OTHER);
            }
            insert.setNull(2, Types.INTEGER);
            check(insert.executeUpdate(), 1);
        }
        // Before the threshold results are text, from the fifth execution on they are binary: both must say the same.
        try (PreparedStatement select = connection.prepareStatement("SELECT * FROM jdbc.types WHERE i4 = ?")) {
            for (int round = 0; round < 12; round += 1) {
                select.setInt(1, -2);
                try (ResultSet result = select.executeQuery()) {
                    check(result.next(), true);
                    check(result.getShort(1), (short) 1);
                    check(result.getInt(2), -2);
                    check(result.getLong(3), 3_000_000_000L);
                    check(result.getFloat(4), 0.5f);
                    check(result.getDouble(5), 1.5);
                    check(result.getBigDecimal(6), new BigDecimal("12.345"));
                    check(result.getString(7), "häh'\"\\ ?");
                    check(result.getBytes(8), new byte[] {0, -1});
                    check(result.getBoolean(9), true);
                    check(result.getDate(10), Date.valueOf("2026-02-28"));
                    check(result.getTimestamp(11), Timestamp.valueOf("2026-01-02 03:04:05.6789"));
                    check(result.getObject(12, OffsetDateTime.class), at);
                    check(result.getObject(13), uuid);
                    check(((PGobject) result.getObject(14)).getValue().replace(" ", ""), "{\"k\":[1,null]}");
                    Array numbers = result.getArray(15);
                    check(numbers.getArray(), new Integer[] {1, null, 3});
                    check(result.getArray(16).getArray(), new String[] {"a,b", null, ""});
                    check(result.next(), false);
                }
            }
        }
        try (PreparedStatement select = connection.prepareStatement("SELECT ?::int + 1, ?::text IS NULL, ? = ANY (?)")) {
            for (int round = 0; round < 8; round += 1) {
                select.setInt(1, round);
                select.setString(2, null);
                select.setString(3, "b");
                select.setArray(4, connection.createArrayOf("text", new String[] {"a", "b"}));
                try (ResultSet result = select.executeQuery()) {
                    result.next();
                    check(result.getInt(1), round + 1);
                    check(result.getBoolean(2), true);
                    check(result.getBoolean(3), true);
                }
            }
        }
    }

    private static void batches(Connection connection) throws SQLException {
        execute(connection, "CREATE TABLE jdbc.batch (id int, name text)");
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc.batch VALUES (?, ?)")) {
            for (int number = 0; number < 500; number += 1) {
                insert.setInt(1, number);
                insert.setString(2, "name " + number);
                insert.addBatch();
            }
            check(Arrays.stream(insert.executeBatch()).sum(), 500);
        }
        try (Connection rewriting = connect("reWriteBatchedInserts", "true");
                PreparedStatement insert = rewriting.prepareStatement("INSERT INTO jdbc.batch VALUES (?, ?)")) {
            for (int number = 500; number < 1000; number += 1) {
                insert.setInt(1, number);
                insert.setString(2, null);
                insert.addBatch();
            }
            insert.executeBatch();
        }
        try (Statement statement = connection.createStatement()) {
            statement.addBatch("INSERT INTO jdbc.batch VALUES (1000, 'a')");
            statement.addBatch("INSERT INTO jdbc.batch VALUES (1001, 'b'), (1002, 'c')");
            check(Arrays.stream(statement.executeBatch()).sum(), 3);
            ResultSet result = statement.executeQuery("SELECT count(*), count(name) FROM jdbc.batch");
            result.next();
            check(result.getLong(1), 1003L);
            check(result.getLong(2), 503L);
        }
        try (PreparedStatement insert =
                connection.prepareStatement("INSERT INTO jdbc.batch VALUES (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
            insert.setInt(1, 2000);
            insert.setString(2, "key");
            check(insert.executeUpdate(), 1);
            ResultSet keys = insert.getGeneratedKeys();
            keys.next();
            check(keys.getInt("id"), 2000);
            check(keys.getString("name"), "key");
        }
        execute(connection, "DELETE FROM jdbc.batch WHERE id = 2000");
        try (PreparedStatement bad = connection.prepareStatement("INSERT INTO jdbc.batch VALUES (10 / ?, 'x')")) {
            bad.setInt(1, 1);
            bad.addBatch();
            bad.setInt(1, 0);
            bad.addBatch();
            bad.executeBatch();
            throw new AssertionError("a division by zero was accepted");
        } catch (BatchUpdateException error) {
            check(error.getSQLState(), "22012");
        }
    }

    /** A fetch size makes a portal of a query in a transaction. */
    private static void portions(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (PreparedStatement select = connection.prepareStatement("SELECT id FROM jdbc.batch ORDER BY id")) {
            select.setFetchSize(64);
            try (ResultSet result = select.executeQuery()) {
                int expected = 0;
                while (result.next()) {
                    check(result.getInt(1), expected);
                    expected += 1;
                }
                check(expected, 1003);
            }
            select.setMaxRows(10);
            try (ResultSet result = select.executeQuery()) {
                check(rows(result, "id").size(), 10);
            }
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    private static void transactions(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        execute(connection, "INSERT INTO jdbc.batch VALUES (-1, 'gone')");
        connection.rollback();
        execute(connection, "INSERT INTO jdbc.batch VALUES (-2, 'stays')");
        java.sql.Savepoint savepoint = connection.setSavepoint("before");
        execute(connection, "INSERT INTO jdbc.batch VALUES (-3, 'gone')");
        connection.rollback(savepoint);
        connection.commit();
        connection.setReadOnly(true);
        connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        check(connection.getTransactionIsolation(), Connection.TRANSACTION_SERIALIZABLE);
        try (Statement statement = connection.createStatement()) {
            check(rows(statement.executeQuery("SELECT id FROM jdbc.batch WHERE id < 0"), "id"), List.of("-2"));
        }
        connection.rollback();
        connection.setReadOnly(false);
        connection.setAutoCommit(true);
    }

    private static void copies(Connection connection) throws Exception {
        CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
        long count = copy.copyIn("COPY jdbc.batch FROM STDIN WITH (FORMAT csv)", new java.io.StringReader("5000,a\n5001,\"b,c\"\n"));
        check(count, 2L);
        java.io.StringWriter out = new java.io.StringWriter();
        copy.copyOut("COPY (SELECT id, name FROM jdbc.batch WHERE id >= 5000 ORDER BY id) TO STDOUT WITH (FORMAT csv)", out);
        check(out.toString(), "5000,a\n5001,\"b,c\"\n");
    }

    private static void errors(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.executeQuery("SELECT nothing FROM jdbc.batch");
            throw new AssertionError("an unknown column was accepted");
        } catch (SQLException error) {
            check(error.getSQLState(), "42703");
            check(((org.postgresql.util.PSQLException) error).getServerErrorMessage().getPosition(), 8);
        }
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE TABLE IF NOT EXISTS jdbc.batch (id int)");
            check(statement.getWarnings().getMessage().contains("already exists"), true);
        }
    }

    /** A statement is ended by `cancel()` from another thread, and by its own timeout; the connection goes on. */
    private static void interruptions(Connection connection) throws Exception {
        String subscribe = "SUBSCRIBE (SELECT 1 FROM jdbc.batch WHERE id = -100)";
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.execute(subscribe);
            throw new AssertionError("a statement outlived its timeout");
        } catch (SQLException error) {
            check(error.getSQLState(), "57014");
        }
        // The driver cancels a statement once: a cancel that comes before the statement does nothing.
        try (Connection other = connect(); Statement statement = connection.createStatement()) {
            awaitSubscriptions(other, 0);
            CompletableFuture<String> ended = CompletableFuture.supplyAsync(() -> {
                try {
                    statement.execute(subscribe);
                    return "no error";
                } catch (SQLException error) {
                    return error.getSQLState();
                }
            });
            awaitSubscriptions(other, 1);
            statement.cancel();
            check(ended.get(60, TimeUnit.SECONDS), "57014");
        }
        check(connection.isValid(5), true);
    }

    private static void awaitSubscriptions(Connection connection, int expected) throws SQLException {
        Instant deadline = Instant.now().plusSeconds(60);
        try (PreparedStatement count = connection.prepareStatement("SELECT count(*)::int FROM mz_internal.mz_subscriptions")) {
            while (true) {
                try (ResultSet result = count.executeQuery()) {
                    result.next();
                    if (result.getInt(1) == expected) {
                        return;
                    }
                    check(Instant.now().isBefore(deadline), true);
                }
                Thread.yield();
            }
        }
    }

    private static void queryModes(Connection connection) throws SQLException {
        try (PreparedStatement select = connection.prepareStatement("SELECT ? + 1 AS next, ?::text AS name, ?::timestamptz AS at")) {
            for (int round = 0; round < 7; round += 1) {
                select.setInt(1, round);
                select.setString(2, "it's");
                select.setTimestamp(3, Timestamp.from(Instant.ofEpochSecond(1_700_000_000L)));
                try (ResultSet result = select.executeQuery()) {
                    result.next();
                    check(result.getInt("next"), round + 1);
                    check(result.getString("name"), "it's");
                    check(result.getTimestamp("at").toInstant(), Instant.ofEpochSecond(1_700_000_000L));
                }
            }
        }
    }
}
