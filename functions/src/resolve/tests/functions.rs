//! Functions, constructs, aggregates and window functions.

use super::*;

#[test]
fn functions_resolve_as_in_chapter_10_3() {
    check(
        scalar,
        &[
            (
                "round",
                "integer, integer",
                "numeric(10,0), integer -> numeric(38,0)",
            ),
            (
                "round",
                "numeric(4,2), integer",
                "numeric(4,2), integer -> numeric(38,2)",
            ),
            ("round", "integer", "double precision -> double precision"),
            ("round", "numeric(4,2)", "numeric(4,2) -> numeric(38,0)"),
            ("substr", "?, integer", "text, integer -> text"),
            (
                "substr",
                "character varying(9), integer",
                "character varying(9), integer -> text",
            ),
            (
                "substr",
                "integer, integer",
                "function substr(integer, integer) does not exist",
            ),
            ("abs", "real", "real -> real"),
            ("abs", "smallint", "smallint -> smallint"),
            ("abs", "?", "double precision -> double precision"),
            ("factorial", "integer", "bigint -> numeric(38,0)"),
            ("sqrt", "integer", "double precision -> double precision"),
            ("sqrt", "numeric(4,2)", "numeric(4,2) -> numeric"),
            ("length", "?", "text -> integer"),
            ("length", "character(5)", "text -> integer"),
            ("octet_length", "character(5)", "character(5) -> integer"),
            (
                "upper",
                "character varying(3)",
                "character varying(3) -> text",
            ),
            (
                "concat",
                "?, integer, character(3)",
                "text, integer, character(3) -> text",
            ),
            ("quote_literal", "character(3)", "text -> text"),
            ("quote_literal", "integer", "integer -> text"),
            ("sin", "integer", "double precision -> double precision"),
            ("pi", "", " -> double precision"),
            ("gcd", "integer, smallint", "integer, integer -> integer"),
            ("mod", "bigint, integer", "bigint, bigint -> bigint"),
            ("mod", "smallint, smallint", "integer, integer -> smallint"),
            ("mod", "uint4, uint4", "uint4, uint4 -> uint4"),
            (
                "to_hex",
                "smallint",
                "function to_hex(smallint) is not unique",
            ),
            (
                "date_trunc",
                "?, date",
                "text, timestamp with time zone -> timestamp with time zone",
            ),
            (
                "date_part",
                "?, date",
                "text, timestamp without time zone -> double precision",
            ),
            (
                "to_timestamp",
                "integer",
                "double precision -> timestamp with time zone",
            ),
            ("to_char", "integer, ?", "bigint, text -> text"),
            ("md5", "?", "text -> text"),
            ("sha256", "?", "bytea -> bytea"),
            ("crc32", "?", "text -> uint4"),
            ("jsonb_build_object", "?, integer", "text, integer -> jsonb"),
            (
                "date",
                "timestamp without time zone",
                "timestamp without time zone -> date",
            ),
            ("date", "?", "date -> date"),
        ],
    );
}

#[test]
fn polymorphic_parameters_are_solved() {
    check(
        scalar,
        &[
            (
                "array_append",
                "integer[], ?",
                "integer[], integer -> integer[]",
            ),
            (
                "array_append",
                "integer[], bigint",
                "bigint[], bigint -> bigint[]",
            ),
            (
                "array_append",
                "integer[], text",
                "function array_append(integer[], text) does not exist",
            ),
            ("array_prepend", "?, text[]", "text, text[] -> text[]"),
            (
                "array_cat",
                "integer[], ?",
                "integer[], integer[] -> integer[]",
            ),
            (
                "array_append",
                "numeric(4,2)[], null",
                "numeric(4,2)[], numeric(4,2) -> numeric(4,2)[]",
            ),
            (
                "array_append",
                "numeric(4,2)[], ?",
                "numeric[], numeric -> numeric[]",
            ),
            (
                "array_position",
                "integer[], integer",
                "integer[], integer -> integer",
            ),
            (
                "array_remove",
                "character(2)[], text",
                "character[], character -> character(2)[]",
            ),
            (
                "array_length",
                "text[], integer",
                "text[], integer -> integer",
            ),
            (
                "array_upper",
                "int2vector, integer",
                "int2vector, integer -> integer",
            ),
            (
                "array_length",
                "?, integer",
                "could not determine polymorphic type because input has type unknown",
            ),
            ("array_fill", "oid, integer[]", "oid, integer[] -> oid[]"),
            ("array_ndims", "integer[]", "integer[] -> integer"),
            ("unnest", "oid[]", "oid[] -> oid"),
            ("unnest", "int2vector", "int2vector -> smallint"),
            (
                "generate_subscripts",
                "text[], integer",
                "text[], integer -> integer",
            ),
            (
                "generate_series",
                "integer, integer",
                "bigint, bigint -> integer",
            ),
            (
                "generate_series",
                "integer, bigint",
                "bigint, bigint -> bigint",
            ),
            (
                "generate_series",
                "date, date, interval",
                "timestamp with time zone, timestamp with time zone, interval -> timestamp with time zone",
            ),
            (
                "generate_series",
                "timestamp without time zone, ?, ?",
                "timestamp without time zone, timestamp without time zone, interval -> timestamp without time zone",
            ),
            (
                "generate_series",
                "?, ?",
                "function generate_series(unknown, unknown) is not unique",
            ),
            ("jsonb_array_elements", "jsonb", "jsonb -> jsonb"),
            ("string_to_table", "?, ?", "text, text -> text"),
        ],
    );
    assert!(is_set_returning("unnest"));
    assert!(is_set_returning("json_object_keys"));
    assert!(!is_set_returning("string_to_array"));
}

#[test]
fn constructs_bring_their_arguments_together() {
    check(
        scalar,
        &[
            (
                "coalesce",
                "?, integer, bigint",
                "bigint, bigint, bigint -> bigint",
            ),
            (
                "coalesce",
                "character(3), character(4)",
                "character, character -> character",
            ),
            (
                "coalesce",
                "integer, boolean",
                "COALESCE types integer and boolean cannot be matched",
            ),
            (
                "greatest",
                "date, timestamp without time zone",
                "timestamp without time zone, timestamp without time zone -> timestamp without time zone",
            ),
            (
                "least",
                "character(3), character(4)",
                "character, character -> text",
            ),
            ("nullif", "integer, bigint", "bigint, bigint -> integer"),
            (
                "nullif",
                "real, double precision",
                "double precision, double precision -> real",
            ),
            (
                "nullif",
                "numeric(4,2), ?",
                "numeric, numeric -> numeric(4,2)",
            ),
            (
                "nullif",
                "character(3), ?",
                "character(3), character -> character(3)",
            ),
            (
                "nullif",
                "integer, boolean",
                "operator does not exist: integer = boolean",
            ),
            (
                "make_array",
                "integer, null, bigint",
                "bigint, bigint, bigint -> bigint[]",
            ),
        ],
    );
}

#[test]
fn aggregates_have_postgresqls_types() {
    check(
        aggregate,
        &[
            ("count", "", " -> bigint"),
            ("count", "?", "text -> bigint"),
            ("sum", "smallint", "smallint -> bigint"),
            ("sum", "bigint", "bigint -> numeric(38,0)"),
            ("sum", "numeric(10,2)", "numeric(10,2) -> numeric(38,2)"),
            ("sum", "real", "real -> real"),
            ("sum", "text", "function sum(text) does not exist"),
            ("sum", "?", "function sum(unknown) is not unique"),
            ("avg", "integer", "integer -> numeric"),
            ("avg", "real", "real -> double precision"),
            ("min", "oid", "oid -> oid"),
            (
                "max",
                "character varying(3)",
                "character varying(3) -> text",
            ),
            ("max", "character(3)", "text -> character(3)"),
            ("max", "?", "text -> text"),
            ("max", "boolean", "function max(boolean) does not exist"),
            ("max", "date[]", "date[] -> date[]"),
            ("bool_and", "?", "boolean -> boolean"),
            ("every", "boolean", "boolean -> boolean"),
            ("string_agg", "character(3), ?", "text, text -> text"),
            (
                "array_agg",
                "character varying(3)",
                "character varying(3) -> character varying(3)[]",
            ),
            ("jsonb_agg", "integer", "integer -> jsonb"),
            ("json_object_agg", "integer, oid", "integer, oid -> jsonb"),
            ("stddev", "integer", "integer -> numeric"),
            ("variance", "numeric(10,2)", "numeric(10,2) -> numeric"),
            ("var_pop", "real", "double precision -> double precision"),
            ("mode", "date", "date -> date"),
            (
                "mode",
                "character varying(3)",
                "character varying(3) -> character varying(3)",
            ),
            ("mode", "character(3)", "text -> character(3)"),
            (
                "percentile_disc",
                "character(3), numeric",
                "text, double precision -> character(3)",
            ),
            (
                "percentile_disc",
                "date, numeric[]",
                "date, double precision[] -> date[]",
            ),
            (
                "percentile_cont",
                "interval, numeric",
                "interval, double precision -> interval",
            ),
            (
                "percentile_cont",
                "integer, double precision[]",
                "double precision, double precision[] -> double precision[]",
            ),
            (
                "regr_count",
                "integer, real",
                "double precision, double precision -> bigint",
            ),
            ("bit_or", "smallint", "smallint -> smallint"),
            ("row_number", "", "function row_number() does not exist"),
        ],
    );
    check(
        window,
        &[
            ("row_number", "", " -> bigint"),
            ("ntile", "integer", "integer -> integer"),
            ("cume_dist", "", " -> double precision"),
            ("lag", "oid", "oid -> oid"),
            (
                "lag",
                "integer, integer, bigint",
                "bigint, integer, bigint -> bigint",
            ),
            ("first_value", "date", "date -> date"),
            ("sum", "integer", "integer -> bigint"),
        ],
    );
}
