\set QUIET on
\pset pager off
SET client_min_messages = error;
CREATE SCHEMA shop;
SET search_path = shop;
CREATE TABLE orders (id int NOT NULL, item varchar(20), price numeric(10,2) DEFAULT 0, at timestamptz, tags text[], body jsonb, ok bool NOT NULL DEFAULT true);
COMMENT ON TABLE orders IS 'what people order';
COMMENT ON COLUMN orders.item IS 'which thing';
CREATE VIEW cheap AS SELECT id, item FROM orders WHERE price < 10;
CREATE MATERIALIZED VIEW totals AS SELECT item, sum(price) AS total FROM orders GROUP BY item;
COMMENT ON MATERIALIZED VIEW totals IS 'what each item brought in';
CREATE INDEX totals_item ON totals (item);
CREATE INDEX orders_upper ON orders (upper(item), id);
CREATE TABLE "Odd Name" ("A column" int, "select" text);
CREATE SOURCE house FROM LOAD GENERATOR AUCTION FOR ALL TABLES;
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.hidden (x int);
CREATE DATABASE other;
\echo '== \\d'
\d
\echo '== \\d+'
\d+ totals
\echo '== \\d of a table'
\d orders
\echo '== \\d+ of a table'
\d+ orders
\echo '== \\d of a table with a key'
\d bids
\echo '== \\d of a view'
\d cheap
\echo '== \\d+ of a view'
\d+ cheap
\echo '== \\d of a materialized view'
\d totals
\echo '== \\d of an index'
\d orders_upper
\echo '== \\d of the index of a key'
\d bids_pkey
\echo '== \\d of a name in quotes'
\d "Odd Name"
\echo '== \\d by a pattern'
\d elsewhere.*
\echo '== \\d of a relation of the catalog'
\d pg_catalog.pg_am
\echo '== \\dt'
\dt
\echo '== \\dt by a pattern'
\dt elsewhere.*
\echo '== \\dv'
\dv
\echo '== \\dv+'
\dv+
\echo '== \\dm'
\dm
\echo '== \\di'
\di
\echo '== \\ds'
\ds
\echo '== \\dE'
\dE
\echo '== \\dn'
\dn
\echo '== \\dn+'
\dn+
\echo '== \\l'
\l
\echo '== \\du'
\du
\echo '== \\dg'
\dg
\echo '== \\df'
\df
\echo '== \\df by a name'
\df upper
\df sum
\df row_number
\echo '== \\da by a name'
\da count
\echo '== \\dT'
\dT
\echo '== \\dT by a name'
\dT int4
\dT+ numeric
\echo '== \\dp'
\dp orders
\dp totals
\echo '== \\dd'
\dd
\echo '== \\ddp'
\ddp
\echo '== \\db'
\db
\echo '== \\dL'
\dL
\echo '== \\dO'
\dO
\echo '== \\dx'
\dx
\echo '== \\dA'
\dA
\echo '== what cannot exist here'
\dC
\dc
\dD
\des
\det
\deu
\dew
\dF
\dFd
\dFp
\dFt
\dl
\do @@@
\dP
\drds
\dRp
\dRs
\dX
\dy
\dAc
\dAf
\dAo
\dAp
\echo '== \\sv'
\sv cheap
\echo '== \\dconfig'
\dconfig search_path
\echo '== \\encoding'
\encoding
