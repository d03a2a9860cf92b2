-- Statements that want more than a node has: memory, processor time, stack, names. `e2e::hostile` runs each against a node with little memory for queries,
-- cancels it soon, and looks at what the node took, what it answered, and whether it is at rest afterwards.
--
-- A statement begins on a line of its own after its forms (`-- select`, `-- insert`, `-- update`, `-- view`, `-- materialized`, `-- prepare`) and ends with a
-- semicolon at the end of a line. `<<n|separator|text>>` stands for n copies of a text, in which `#` is the number of the copy. The tables are
-- `one (v text)`, one row, and `many (id int, v text)`, a thousand rows.

-- ## Values that grow
-- select insert update prepare
SELECT repeat('x', 2000000000);
-- select insert
SELECT repeat('x', 1000000000);
-- select insert update
SELECT repeat('x', 400000000);
-- select
SELECT length(repeat('x', 100000000) || repeat('y', 100000000) || repeat('z', 100000000) || repeat('w', 100000000));
-- select insert
SELECT repeat(repeat(repeat('x', 1000), 1000), 1000);
-- select
SELECT repeat('', 2147483647);
-- select insert update
SELECT lpad('x', 1000000000);
-- select
SELECT rpad('x', 1000000000, 'abc');
-- select
SELECT lpad('x', 268435455, '日本');
-- select insert
SELECT replace(repeat('x', 1000000), 'x', repeat('y', 100000));
-- select
SELECT replace(replace(replace(repeat('x', 10000), 'x', repeat('y', 1000)), 'y', repeat('z', 1000)), 'z', 'zz');
-- select
SELECT regexp_replace(repeat('x', 1000000), 'x', repeat('y', 100000), 'g');
-- select
SELECT regexp_replace(repeat('x', 1000000), '(x+)', repeat('\1', 10000), 'g');
-- select
SELECT translate(repeat('x', 300000000), 'x', '日');
-- select insert
SELECT format('%2147483647s', 'x');
-- select
SELECT format('%99999999999s', 'x');
-- select
SELECT format('<<200||%1000000000s>>', <<200|,|'x'>>);
-- select
SELECT concat(<<100|,|repeat('x', 10000000)>>);
-- select
SELECT concat_ws(repeat(',', 10000000), <<100|,|'x'>>);
-- select
SELECT overlay(repeat('x', 300000000) placing repeat('y', 300000000) from 2);
-- select
SELECT quote_literal(repeat('''', 300000000));
-- select
SELECT encode(repeat('x', 400000000)::bytea, 'hex');
-- select
SELECT encode(convert_to(repeat('x', 400000000), 'utf8'), 'base64');
-- select
SELECT reverse(repeat('x', 300000000)), upper(repeat('x', 300000000)), initcap(repeat('x', 300000000));
-- select
SELECT md5(repeat('x', 400000000));
-- select
SELECT to_char(1, repeat('9', 1000000));
-- select
SELECT to_char(now(), repeat('YYYY', 10000000));
-- select
SELECT length(<<60|+|length(repeat('x', 10000000))>>::text);
-- select
SELECT <<20| \|\| |repeat('x', 50000000)>>;
-- select
SELECT split_part(repeat('x,', 100000000), ',', 2000000);
-- select
SELECT CASE WHEN id < 990 THEN v ELSE repeat(v, 100000000) END FROM many;

-- ## The same once for every row
-- select insert update materialized
SELECT repeat('x', 1000000) FROM generate_series(1, 1000000);
-- select insert view
SELECT g, repeat(g::text, 100000) FROM generate_series(1, 1000000) AS s (g);
-- select insert
SELECT lpad(id::text, 10000000) FROM many;
-- select
SELECT max(repeat(id::text, 10000000)) FROM many;
-- select
SELECT repeat('x', 100000) FROM many ORDER BY repeat(id::text, 100000);
-- select
SELECT count(*) FROM many WHERE length(repeat(id::text, 1000000)) > 0;
-- select
SELECT repeat(a.v, 10000) || repeat(b.v, 10000) FROM many a, many b;
-- select
SELECT <<200|,|repeat(id::text, 10000) AS c#>> FROM many;
-- select
SELECT format('%1000000s', id) FROM many;
-- select
SELECT string_to_array(repeat('x,', 1000000), ','), id FROM many;
-- select
SELECT CASE WHEN g < 8000 THEN 'x' ELSE repeat('x', 10000000) END FROM generate_series(1, 100000) AS s (g);

-- ## Arrays
-- select insert
SELECT array_fill(1, ARRAY[1000000000]);
-- select
SELECT array_fill(repeat('x', 1000000), ARRAY[1000000]);
-- select
SELECT array_length(array_fill(0, ARRAY[134217727]), 1);
-- select
SELECT string_to_array(repeat('x,', 200000000), ',');
-- select
SELECT string_to_array(repeat('x', 200000000), NULL);
-- select
SELECT regexp_split_to_array(repeat('x,', 100000000), ',');
-- select
SELECT array_cat(array_fill(1, ARRAY[50000000]), array_fill(2, ARRAY[50000000]));
-- select
SELECT array_append(array_fill(1, ARRAY[10000000]), id) FROM many;
-- select
SELECT array_fill(1, ARRAY[1000000]) || id FROM many;
-- select
SELECT array_to_string(array_fill(repeat('x', 1000), ARRAY[1000000]), repeat(',', 1000));
-- select
SELECT array_agg(v) FROM many, generate_series(1, 1000000);
-- select materialized
SELECT array_agg(g) FROM generate_series(1, 1000000000) AS s (g);
-- select
SELECT array_agg(array_fill(id, ARRAY[1000000])) FROM many;
-- select
SELECT ARRAY(SELECT g FROM generate_series(1, 1000000000) AS s (g));
-- select
SELECT unnest(array_fill(1, ARRAY[100000000])), repeat('x', 100000);
-- select
SELECT ARRAY[<<50000|,|#>>];
-- select
SELECT ARRAY[<<100|,|array_fill(#, ARRAY[1000000])>>];
-- select
SELECT count(*) FROM unnest(string_to_array(repeat('x,', 50000000), ',')) AS u (x), many;

-- ## Series
-- select insert view prepare
SELECT * FROM generate_series(1, 1000000000);
-- select insert
SELECT generate_series(1, 1000000000);
-- select
SELECT generate_series(1, 9223372036854775807);
-- select
SELECT * FROM generate_series(-9223372036854775808, 9223372036854775807);
-- select
SELECT * FROM generate_series(1, 1000000000) LIMIT 1;
-- select
SELECT count(*) FROM generate_series(1, 100000000000);
-- select
SELECT sum(a * b) FROM generate_series(1, 1000000) AS x (a), generate_series(1, 1000000) AS y (b);
-- select
SELECT * FROM generate_series(1, 1000000000) OFFSET 999999999;
-- select
SELECT * FROM generate_series(timestamp '1700-01-01', timestamp '2200-01-01', interval '1 microsecond');
-- select
SELECT * FROM generate_series(timestamptz '2000-01-01', timestamptz '2200-01-01', interval '1 second');
-- select
SELECT count(*) FROM generate_series(date '0001-01-01', date '9999-12-31', interval '1 day');
-- select
SELECT * FROM generate_series(timestamp '2000-01-01', timestamp '2001-01-01', interval '0');
-- select
SELECT generate_series(1, 100000000), generate_series(1, 100000000), repeat('x', 10000);
-- select
SELECT s.g FROM many, generate_series(1, many.id * 1000000) AS s (g);
-- select
SELECT DISTINCT g FROM generate_series(1, 1000000000) AS s (g);
-- select
SELECT g FROM generate_series(1, 1000000000) AS s (g) ORDER BY g DESC;
-- select insert
SELECT g, g::text FROM generate_series(1, 100000000) AS s (g) ORDER BY md5(g::text);
-- select
SELECT g % 2, count(DISTINCT g) FROM generate_series(1, 1000000000) AS s (g) GROUP BY 1;
-- select
SELECT g, count(*) FROM generate_series(1, 1000000000) AS s (g) GROUP BY g;
-- select
SELECT * FROM generate_series(1, 100000000) AS s (g) WHERE g IN (SELECT h FROM generate_series(1, 100000000) AS t (h));
-- select
SELECT * FROM generate_series(1, 100000000) EXCEPT SELECT * FROM generate_series(2, 100000000);
-- select
SELECT * FROM generate_series(1, 100000000) UNION SELECT * FROM generate_series(2, 100000000);

-- ## Aggregates and windows
-- select insert materialized
SELECT string_agg(repeat('x', 1000), ',') FROM generate_series(1, 10000000);
-- select
SELECT string_agg(v, repeat(',', 1000000)) FROM many;
-- select
SELECT jsonb_agg(g) FROM generate_series(1, 1000000000) AS s (g);
-- select
SELECT jsonb_object_agg(g, repeat('x', 1000)) FROM generate_series(1, 10000000) AS s (g);
-- select
SELECT count(*) OVER () FROM generate_series(1, 100000000);
-- select
SELECT sum(g) OVER (ORDER BY g ROWS BETWEEN 1000000 PRECEDING AND 1000000 FOLLOWING) FROM generate_series(1, 10000000) AS s (g);
-- select
SELECT array_agg(g) OVER (ORDER BY g) FROM generate_series(1, 100000) AS s (g);
-- select
SELECT string_agg(g::text, ',') OVER (ORDER BY g ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM generate_series(1, 100000) AS s (g);
-- select
SELECT first_value(repeat('x', 1000000)) OVER (ORDER BY id) FROM many;
-- select
SELECT lag(g, 1000000, 0) OVER (ORDER BY g DESC) FROM generate_series(1, 10000000) AS s (g);
-- select
SELECT max(v) OVER (PARTITION BY g % 10 ORDER BY g ROWS BETWEEN 50000 PRECEDING AND CURRENT ROW) FROM generate_series(1, 1000000) AS s (g), one;
-- select
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY g) FROM generate_series(1, 1000000000) AS s (g);
-- select
SELECT <<100|,|count(DISTINCT g % #0000003)>> FROM generate_series(1, 10000000) AS s (g);
-- select
SELECT g, v, count(*) FROM generate_series(1, 10000000) AS s (g), many GROUP BY CUBE (g, v);

-- ## Joins and recursion
-- select insert update view
SELECT a.v FROM many a, many b, many c, many d;
-- select
SELECT count(*) FROM many a, many b, many c WHERE a.id < b.id AND b.id <> c.id;
-- select
SELECT count(*) FROM generate_series(1, 1000000) AS a (x) JOIN generate_series(1, 1000000) AS b (y) ON a.x <> b.y;
-- select
SELECT count(*) FROM generate_series(1, 1000000) AS a (x) FULL JOIN generate_series(1, 1000000) AS b (y) ON a.x = b.y;
-- select
SELECT count(*) FROM generate_series(1, 100000000) AS a (x) JOIN generate_series(1, 100000000) AS b (y) ON a.x = b.y;
-- select
SELECT count(*) FROM generate_series(1, 1000000) AS a (x) LEFT JOIN generate_series(1, 1000000) AS b (y) ON a.x + b.y = 7;
-- select
SELECT (SELECT repeat('x', 1000000)), g FROM generate_series(1, 1000000) AS s (g);
-- select
SELECT w.v FROM (SELECT repeat('x', 10000000) AS v) AS w, generate_series(1, 1000000);
-- select
SELECT w.v, many.v FROM (SELECT repeat('x', 1000000) AS v, 1 AS k) AS w JOIN many ON many.id > w.k;
-- select
SELECT <<12|,|t#.v>> FROM <<12| JOIN |many AS t#>> <<11||ON true >>;
-- select
SELECT count(*) FROM <<60|,|many AS t#>>;
-- select
SELECT count(*) FROM one AS t0 <<60|| JOIN one AS u# ON u#.v = t0.v >>;
-- select insert
WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t;
-- select
WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT * FROM t;
-- select
WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n FROM t) SELECT * FROM t OFFSET 1000000000;
-- select
WITH RECURSIVE t AS (SELECT 'x' AS v UNION ALL SELECT v || v FROM t) SELECT max(length(v)) FROM t;
-- select
WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + g FROM t, generate_series(1, 10) AS s (g)) SELECT count(*) FROM t;
-- select
WITH RECURSIVE t AS (SELECT 1 AS n UNION SELECT n * 2 % 1000003 FROM t) SELECT count(*) FROM t, many a, many b;
-- select
WITH w AS (SELECT g, repeat('x', 1000) AS v FROM generate_series(1, 10000000) AS s (g)) SELECT count(*) FROM w a JOIN w b ON a.g = b.g;
-- select
WITH a AS (SELECT * FROM many, one) <<12||, a# AS (SELECT x.id FROM many AS x, many AS y)>> SELECT count(*) FROM <<12|,|a#>>;
-- select
SELECT * FROM generate_series(1, 1000000) AS s (g), LATERAL (SELECT repeat(g::text, 1000) AS r) AS l;
-- select
SELECT (SELECT count(*) FROM many b, many c WHERE b.id > a.id) FROM many a;

-- ## Patterns
-- select insert update prepare
SELECT 'x' ~ repeat('(a*)*', 1000000);
-- select
SELECT 'x' ~ repeat('(a*)*', 100000);
-- select
SELECT 'x' ~ repeat('a', 200000000);
-- select
SELECT 'x' ~ '((a{1,100}){1,100}){1,100}';
-- select
SELECT 'x' ~ '(\w{1,255}){1,255}';
-- select
SELECT repeat('x', 10000000) ~ '(x+x+)+y';
-- select
SELECT repeat('ab', 1000000) ~ '^(a?b?){1,200}c$';
-- select
SELECT repeat('a', 1000000) ~ '(a|aa|aaa)*b\w{100}';
-- select
SELECT 'x' ~ (repeat('(', 100000) || repeat(')', 100000));
-- select
SELECT v ~ ('x' || repeat('(a*)*', id)) FROM many;
-- select
SELECT v ~ (id::text || '\w{500}') FROM many;
-- select
SELECT 'x' SIMILAR TO repeat('(a|b)*', 100000);
-- select
SELECT repeat('a', 100000) LIKE repeat('%a', 10000) || 'b';
-- select
SELECT repeat('a', 1000000) LIKE '%' || repeat('a%', 1000000) || 'b';
-- select
SELECT repeat('a', 100000) ILIKE repeat('%a_', 10000) || 'b' FROM many;
-- select
SELECT 'x' LIKE repeat('%', 500000000);
-- select
SELECT regexp_match(repeat('x', 10000000), '(.*)(.*)(.*)(.*)(.*)y');
-- select
SELECT regexp_split_to_table(repeat('x', 10000000), '');
-- select
SELECT regexp_matches(repeat('x', 10000000), 'x', 'g');

-- ## Numbers and dates
-- select
SELECT 9 ^ 9 ^ 9;
-- select
SELECT 9::numeric ^ 9::numeric ^ 9::numeric;
-- select
SELECT power(10::numeric, 1000000);
-- select
SELECT exp(100000::numeric), exp(-1000000::numeric), ln(1e-30);
-- select
SELECT <<60|*|9999999999::numeric>>;
-- select
SELECT sum(exp(g)) FROM generate_series(1, 10000000) AS s (g);
-- select
SELECT 1e1000000::numeric;
-- select
SELECT repeat('9', 1000000)::numeric;
-- select
SELECT (repeat('9', 10000000) || '.5')::double precision;
-- select
SELECT interval '1 year' * 1e300, date '2000-01-01' + 2147483647;
-- select
SELECT age(g) FROM generate_series(timestamp '0001-01-01', timestamp '9999-01-01', interval '1 minute') AS s (g);
-- select
SELECT repeat('1', 10000000)::date;
-- select
SELECT gcd(g, 9223372036854775807) FROM generate_series(1, 100000000) AS s (g);

-- ## Documents
-- select
SELECT (repeat('[', 1000000) || repeat(']', 1000000))::jsonb;
-- select
SELECT ('[' || repeat('[],', 2000000) || '[]]')::jsonb;
-- select
SELECT jsonb_build_array(<<200|,|repeat('x', 1000000)>>);
-- select
SELECT to_jsonb(repeat(chr(1), 40000000));
-- select
SELECT jsonb_array_elements(('[' || repeat('1,', 1000000) || '1]')::jsonb), repeat('x', 10000);
-- select
SELECT jsonb_pretty((repeat('[', 400) || repeat(']', 400))::jsonb) FROM many;
-- select
SELECT ('{"a": "' || repeat('x', 10000000) || '"}')::jsonb || jsonb_build_object('b', id) FROM many;
-- select
SELECT to_jsonb(v) || to_jsonb(repeat(v, 1000000)) FROM many;

-- ## Large and deep statements
-- select view
SELECT <<1000| UNION ALL |SELECT #>>;
-- select
SELECT * FROM many WHERE id IN (<<20000|,|#>>);
-- select
SELECT * FROM many WHERE v IN (<<20000|,|'x' \|\| #>>);
-- select
SELECT * FROM many WHERE <<1000| OR |id = #>>;
-- select
SELECT * FROM many WHERE <<1000| AND |v <> 'x#'>>;
-- select
SELECT <<1000|+|#>>;
-- select
SELECT <<1000| \|\| |'#'>>;
-- select
SELECT <<3000||(>>1<<3000||)>>;
-- select
SELECT <<100000||(>>1<<100000||)>>;
-- select
SELECT <<2000||- >>1;
-- select
SELECT <<2000||NOT >>true;
-- select
SELECT <<60||CASE WHEN true THEN >>1<<60|| END>>;
-- select
SELECT <<500||abs(>>1<<500||)>>;
-- select
<<200||SELECT * FROM (>>SELECT 1<<200||) AS s#>>;
-- select
SELECT <<1500|,|# AS c#>>;
-- select
SELECT <<1600|,|id AS c#>> FROM many ORDER BY 1;
-- select
SELECT '<<1||x>><<1000000||y>>';
-- select
SELECT length('<<1000000||y>>') FROM many;
-- select insert
VALUES <<20000|,|(repeat('x', 10000))>>;
-- select
VALUES <<20000|,|('row #')>>;
-- select
SELECT * FROM <<100| NATURAL JOIN |one AS t#>>;
-- select
SELECT <<300|,|(SELECT count(*) FROM many WHERE id > #) AS c#>>;
-- select
WITH <<200|,|w# AS (SELECT # AS n)>> SELECT count(*) FROM <<40|,|w#>>;
-- select
WITH a0 AS (SELECT 1 AS n) <<24||, b# AS (SELECT * FROM a0 UNION ALL SELECT * FROM a0)>> SELECT count(*) FROM <<24|,|b#>>;
-- select view
WITH a AS (SELECT 1 AS n), b AS (SELECT * FROM a UNION ALL SELECT * FROM a), c AS (SELECT * FROM b UNION ALL SELECT * FROM b), d AS (SELECT * FROM c UNION ALL SELECT * FROM c), e AS (SELECT * FROM d UNION ALL SELECT * FROM d), f AS (SELECT * FROM e UNION ALL SELECT * FROM e), g AS (SELECT * FROM f UNION ALL SELECT * FROM f), h AS (SELECT * FROM g UNION ALL SELECT * FROM g), i AS (SELECT * FROM h UNION ALL SELECT * FROM h), j AS (SELECT * FROM i UNION ALL SELECT * FROM i), k AS (SELECT * FROM j UNION ALL SELECT * FROM j), l AS (SELECT * FROM k UNION ALL SELECT * FROM k), m AS (SELECT * FROM l UNION ALL SELECT * FROM l), n AS (SELECT * FROM m UNION ALL SELECT * FROM m), o AS (SELECT * FROM n UNION ALL SELECT * FROM n), p AS (SELECT * FROM o UNION ALL SELECT * FROM o), q AS (SELECT * FROM p UNION ALL SELECT * FROM p), r AS (SELECT * FROM q UNION ALL SELECT * FROM q), s AS (SELECT * FROM r UNION ALL SELECT * FROM r), t AS (SELECT * FROM s UNION ALL SELECT * FROM s), u AS (SELECT * FROM t UNION ALL SELECT * FROM t), v AS (SELECT * FROM u UNION ALL SELECT * FROM u), w AS (SELECT * FROM v UNION ALL SELECT * FROM v), x AS (SELECT * FROM w UNION ALL SELECT * FROM w), y AS (SELECT * FROM x UNION ALL SELECT * FROM x), z AS (SELECT * FROM y UNION ALL SELECT * FROM y) SELECT count(*) FROM z;
-- select
WITH a AS (SELECT * FROM many), b AS (SELECT x.id FROM a AS x JOIN a AS y ON x.id = y.id), c AS (SELECT x.id FROM b AS x JOIN b AS y ON x.id = y.id), d AS (SELECT x.id FROM c AS x JOIN c AS y ON x.id = y.id), e AS (SELECT x.id FROM d AS x JOIN d AS y ON x.id = y.id), f AS (SELECT x.id FROM e AS x JOIN e AS y ON x.id = y.id), g AS (SELECT x.id FROM f AS x JOIN f AS y ON x.id = y.id), h AS (SELECT x.id FROM g AS x JOIN g AS y ON x.id = y.id), i AS (SELECT x.id FROM h AS x JOIN h AS y ON x.id = y.id), j AS (SELECT x.id FROM i AS x JOIN i AS y ON x.id = y.id), k AS (SELECT x.id FROM j AS x JOIN j AS y ON x.id = y.id), l AS (SELECT x.id FROM k AS x JOIN k AS y ON x.id = y.id), m AS (SELECT x.id FROM l AS x JOIN l AS y ON x.id = y.id), n AS (SELECT x.id FROM m AS x JOIN m AS y ON x.id = y.id), o AS (SELECT x.id FROM n AS x JOIN n AS y ON x.id = y.id), p AS (SELECT x.id FROM o AS x JOIN o AS y ON x.id = y.id), q AS (SELECT x.id FROM p AS x JOIN p AS y ON x.id = y.id), r AS (SELECT x.id FROM q AS x JOIN q AS y ON x.id = y.id), s AS (SELECT x.id FROM r AS x JOIN r AS y ON x.id = y.id), t AS (SELECT x.id FROM s AS x JOIN s AS y ON x.id = y.id) SELECT count(*) FROM t;
-- select
WITH RECURSIVE t AS (SELECT repeat('x', 1000) AS v UNION ALL SELECT v FROM t) SELECT string_agg(v, '') FROM t;
-- select
SELECT * FROM many LIMIT 9223372036854775807 OFFSET 9223372036854775807;
-- select
SELECT * FROM many ORDER BY <<200|,|length(v) + #>>;
-- select
SELECT DISTINCT ON (<<100|,|id + #>>) * FROM many;
