//! Operators.

use super::*;

#[test]
fn operators_resolve_as_in_chapter_10_2() {
    check(
        operator,
        &[
            ("||", "text, ?", "text, text -> text"),
            ("||", "?, ?", "text, text -> text"),
            ("||", "?, integer", "text, integer -> text"),
            ("||", "integer, text", "integer, text -> text"),
            (
                "||",
                "integer, integer",
                "operator does not exist: integer || integer",
            ),
            ("||", "character(3), character(3)", "text, text -> text"),
            ("||", "name, text", "name, text -> text"),
            ("||", "integer[], ?", "integer[], integer[] -> integer[]"),
            (
                "||",
                "integer[], integer",
                "integer[], integer -> integer[]",
            ),
            (
                "||",
                "smallint, integer[]",
                "integer, integer[] -> integer[]",
            ),
            ("||", "jsonb, ?", "jsonb, jsonb -> jsonb"),
            ("||", "bytea, ?", "bytea, bytea -> bytea"),
            ("@", "?", "double precision -> double precision"),
            ("~", "?", "operator is not unique: ~ unknown"),
            ("~", "bigint", "bigint -> bigint"),
            ("+", "?, ?", "operator is not unique: unknown + unknown"),
            (
                "+",
                "text, integer",
                "operator does not exist: text + integer",
            ),
            ("+", "integer, ?", "integer, integer -> integer"),
            ("+", "smallint, bigint", "smallint, bigint -> bigint"),
            ("+", "integer, real", "integer, real -> double precision"),
            (
                "+",
                "numeric(4,2), real",
                "numeric(4,2), real -> double precision",
            ),
            (
                "+",
                "integer, numeric(4,2)",
                "integer, numeric(4,2) -> numeric(38,2)",
            ),
            (
                "*",
                "numeric(4,2), numeric(4,3)",
                "numeric(4,2), numeric(4,3) -> numeric(38,5)",
            ),
            ("+", "uint4, integer", "uint4, integer -> bigint"),
            ("%", "smallint, integer", "smallint, integer -> integer"),
            (
                "%",
                "double precision, integer",
                "operator does not exist: double precision % integer",
            ),
            (
                "^",
                "integer, integer",
                "double precision, double precision -> double precision",
            ),
            (
                "^",
                "numeric(4,2), integer",
                "numeric(4,2), numeric(10,0) -> numeric",
            ),
            ("-", "date, date", "date, date -> integer"),
            ("-", "date, ?", "date, date -> integer"),
            ("+", "date, ?", "operator is not unique: date + unknown"),
            (
                "+",
                "timestamp with time zone, ?",
                "timestamp with time zone, interval -> timestamp with time zone",
            ),
            (
                "-",
                "date, timestamp without time zone",
                "timestamp without time zone, timestamp without time zone -> interval",
            ),
            ("*", "interval, ?", "interval, double precision -> interval"),
            (
                "*",
                "integer, interval",
                "double precision, interval -> interval",
            ),
            ("-", "boolean", "operator does not exist: - boolean"),
            ("-", "smallint", "smallint -> smallint"),
            ("#", "smallint, smallint", "smallint, smallint -> smallint"),
            ("<<", "smallint, integer", "smallint, integer -> smallint"),
            ("->", "jsonb, ?", "jsonb, text -> jsonb"),
            ("->", "jsonb, integer", "jsonb, bigint -> jsonb"),
            ("-", "jsonb, ?", "jsonb, text -> jsonb"),
            ("#>>", "jsonb, ?", "jsonb, text[] -> text"),
            ("@>", "integer[], ?", "integer[], integer[] -> boolean"),
            ("<@", "?, jsonb", "jsonb, jsonb -> boolean"),
            (
                "~~",
                "character varying(5), ?",
                "character varying(5), text -> boolean",
            ),
            ("~~", "character(5), ?", "character(5), text -> boolean"),
            ("!~*", "?, ?", "text, text -> boolean"),
        ],
    );
}

#[test]
fn comparisons_find_the_type_that_both_sides_have() {
    check(
        operator,
        &[
            ("=", "integer, bigint", "integer, bigint -> boolean"),
            (
                "=",
                "integer, numeric(4,2)",
                "integer, numeric(4,2) -> boolean",
            ),
            ("=", "numeric(4,2), ?", "numeric(4,2), numeric -> boolean"),
            (
                "<",
                "integer, real",
                "double precision, double precision -> boolean",
            ),
            ("<", "real, ?", "real, real -> boolean"),
            (
                ">",
                "real, double precision",
                "double precision, double precision -> boolean",
            ),
            ("=", "uint8, integer", "uint8, integer -> boolean"),
            ("=", "uint2, uint8", "uint2, uint8 -> boolean"),
            ("=", "integer, uint4", "integer, uint4 -> boolean"),
            ("=", "oid, integer", "oid, integer -> boolean"),
            ("=", "regclass, oid", "regclass, oid -> boolean"),
            (
                "=",
                "text, integer",
                "operator does not exist: text = integer",
            ),
            ("=", "uuid, text", "operator does not exist: uuid = text"),
            ("!=", "?, ?", "text, text -> boolean"),
            (
                "=",
                "character varying(3), text",
                "character varying(3), text -> boolean",
            ),
            ("=", "character(3), ?", "character(3), character -> boolean"),
            (
                "=",
                "character(3), character varying(3)",
                "character(3), character -> boolean",
            ),
            ("=", "character(3), text", "text, text -> boolean"),
            ("=", "name, ?", "name, name -> boolean"),
            (
                "<=",
                "date, timestamp with time zone",
                "timestamp with time zone, timestamp with time zone -> boolean",
            ),
            ("=", "interval, ?", "interval, interval -> boolean"),
            ("<", "jsonb, ?", "jsonb, jsonb -> boolean"),
            ("=", "integer[], ?", "integer[], integer[] -> boolean"),
            (
                "=",
                "character varying(3)[], ?",
                "character varying[], character varying[] -> boolean",
            ),
            (
                "=",
                "integer[], text[]",
                "operator does not exist: integer[] = text[]",
            ),
            (
                "<=",
                "mz_timestamp, bigint",
                "mz_timestamp, bigint -> boolean",
            ),
            (
                "IS DISTINCT FROM",
                "integer, ?",
                "integer, integer -> boolean",
            ),
            (
                "IS DISTINCT FROM",
                "integer, boolean",
                "operator does not exist: integer = boolean",
            ),
        ],
    );
}
