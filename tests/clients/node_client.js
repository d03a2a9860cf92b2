// node-postgres against a node: types, named statements, cursors and streams, transactions, notices, errors, timeouts, pools.

"use strict";

const assert = require("node:assert/strict");
const { Client, Pool, types } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");

const options = { host: "127.0.0.1", port: Number(process.argv[2]), user: "materialize", database: "materialize" };
types.setTypeParser(types.builtins.INT8, BigInt);

async function typesBothWays(client) {
  await client.query(
    "CREATE TABLE np (i2 int2, i4 int, i8 bigint, f8 float8, n numeric(12,3), t text, b bytea, ok bool," +
      " ts timestamptz, u uuid, j jsonb, a int[], ta text[], iv interval)",
  );
  const row = [
    1,
    -2,
    3000000000n,
    1.5,
    "12.345",
    "häh'\"\\",
    Buffer.from([0, 255]),
    true,
    new Date("2026-01-02T03:04:05.678Z"),
    "12345678-1234-5678-1234-567812345678",
    { k: [1, 2.5, null, "x"] },
    [1, null, 3],
    ["a,b", 'c"d', null, ""],
    "3 days 04:05:06",
  ];
  const marks = row.map((_, index) => `$${index + 1}`).join(", ");
  const inserted = await client.query(`INSERT INTO np VALUES (${marks})`, row);
  assert.equal(inserted.command, "INSERT");
  assert.equal(inserted.rowCount, 1);
  const result = await client.query({ text: "SELECT * FROM np", rowMode: "array" });
  const got = result.rows[0];
  assert.deepEqual(got.slice(0, 13), row.slice(0, 13));
  assert.deepEqual({ ...got[13] }, { days: 3, hours: 4, minutes: 5, seconds: 6 });
  assert.deepEqual(
    result.fields.slice(0, 3).map((field) => [field.name, field.dataTypeID, field.dataTypeSize]),
    [["i2", 21, 2], ["i4", 23, 4], ["i8", 20, 8]],
  );
  const nothing = await client.query("SELECT $1::text AS nothing, $2::int[] AS empty", [null, []]);
  assert.deepEqual(nothing.rows[0], { nothing: null, empty: [] });
}

async function statements(client) {
  for (let number = 0; number < 20; number += 1) {
    const result = await client.query({ name: "double", text: "SELECT $1::int * 2 AS double", values: [number] });
    assert.equal(result.rows[0].double, number * 2);
  }
  await client.query("INSERT INTO np (i4) SELECT x FROM generate_series(1, 5000) AS s(x)");
  const several = await client.query("SELECT 1 AS a; SELECT 2 AS b");
  assert.deepEqual(several.map((result) => result.rows[0]), [{ a: 1 }, { b: 2 }]);
  // A cursor reads in portions, a stream is a cursor with backpressure.
  const cursor = client.query(new Cursor("SELECT i4 FROM np WHERE i4 > $1 ORDER BY i4", [0]));
  assert.deepEqual((await cursor.read(2)).map((row) => row.i4), [1, 2]);
  assert.deepEqual((await cursor.read(3)).map((row) => row.i4), [3, 4, 5]);
  await cursor.close();
  let count = 0;
  for await (const row of client.query(new QueryStream("SELECT i4 FROM np WHERE i4 > 0 ORDER BY i4", [], { batchSize: 100 }))) {
    count += 1;
    assert.equal(row.i4, count);
  }
  assert.equal(count, 5000);
}

async function transactions(client) {
  await client.query("BEGIN");
  await client.query("INSERT INTO np (i4) VALUES ($1)", [-10]);
  await client.query("ROLLBACK");
  await client.query("BEGIN");
  await client.query("INSERT INTO np (i4) VALUES ($1)", [-11]);
  await client.query("COMMIT");
  const { rows } = await client.query("SELECT i4 FROM np WHERE i4 < -2");
  assert.deepEqual(rows, [{ i4: -11 }]);
}

async function errors(client) {
  await assert.rejects(client.query("SELECT nothing FROM np"), { code: "42703", position: "8", severity: "ERROR" });
  await assert.rejects(client.query("SELECT 1 / $1::int", [0]), { code: "22012" });
  assert.equal((await client.query("SELECT 1 AS one")).rows[0].one, 1);
  const notices = [];
  client.on("notice", (notice) => notices.push(notice.message));
  await client.query("CREATE TABLE IF NOT EXISTS np (i int)");
  assert.match(notices.join("\n"), /already exists/);
  await client.query("SET statement_timeout = 5");
  await assert.rejects(client.query("SELECT count(*) FROM np AS a, np AS b WHERE a.i4 + b.i4 < 0"), { code: "57014" });
  await client.query("RESET statement_timeout");
}

async function main() {
  const client = new Client({ ...options, application_name: "node test" });
  await client.connect();
  for (const part of [typesBothWays, statements, transactions, errors]) {
    await part(client);
  }
  await client.end();
  const pool = new Pool({ ...options, max: 4 });
  const results = await Promise.all([...Array(40).keys()].map((number) => pool.query("SELECT $1::int + 1 AS next", [number])));
  assert.deepEqual(results.map((result) => result.rows[0].next), [...Array(40).keys()].map((number) => number + 1));
  await pool.end();
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
