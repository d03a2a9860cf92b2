//! The scalar and set-returning functions: names and signatures.
//!
//! Ours are listed as they declare their overloads, except where PostgreSQL says more than these do: that items belong to an array, that two spellings exist.
//! Of DataFusion's functions those are listed that PostgreSQL has too and that do the same there. Operators are not here ([`super::operators`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;
use itertools::Itertools;

use super::meaning::Meaning;
use super::signature::{Fit, Param, Returns, Signature};
use crate::udf::{P, PgFunction};

/// Functions that only plans call, by their names.
const INTERNAL: &[&str] = &[
    "age_of_transaction",
    "array_eq_any",
    "array_holds_all",
    "array_holds_any",
    "array_ordinals",
    "array_slice_range",
    "array_subscript",
    "bytea_concat",
    "generate_moments",
    "jsonb_array_elements_list",
    "jsonb_array_elements_text_list",
    "jsonb_each_keys",
    "jsonb_each_rows",
    "jsonb_each_text_keys",
    "jsonb_each_text_rows",
    "jsonb_each_text_values",
    "jsonb_each_values",
    "jsonb_get",
    "jsonb_get_path",
    "jsonb_get_path_text",
    "jsonb_get_text",
    "jsonb_object_keys_list",
    "jsonb_object_lists",
    "jsonb_path_query_list",
    "jsonb_subscript",
    "lookup_oid",
    "lookup_oid_or_null",
    "pg_negate",
    "raise_error",
    "regexp_matches_list",
    "regexp_split_to_table_list",
    "regproc_name",
    "text_concat",
    "text_ilike",
    "text_like",
];

/// Functions whose rows are records, which are no type of ours: whoever plans them knows their columns.
const OF_RECORDS: &[&str] = &["_pg_expandarray", "jsonb_each_rows", "jsonb_each_text_rows"];

/// Functions of one `double precision`.
const OF_FLOATS: &[&str] = &[
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "cot", "degrees", "radians",
    "sin", "sinh", "tan", "tanh",
];

static TABLE: LazyLock<Table> = LazyLock::new(Table::build);

/// The signatures of a function; none if there is no such function.
pub(super) fn named(name: &str) -> &'static [Signature<Meaning>] {
    TABLE
        .signatures
        .get(name)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Whether statements may call the function.
pub(super) fn is_callable(name: &str) -> bool {
    TABLE.signatures.contains_key(name) && !INTERNAL.contains(&name)
}

/// The names of all functions of the table.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.signatures.keys().map(String::as_str)
}

#[derive(Debug, Default)]
struct Table {
    signatures: BTreeMap<String, Vec<Signature<Meaning>>>,
    /// Names whose signatures are not those that the function declares.
    listed: BTreeSet<&'static str>,
}

fn array(item: SqlType) -> SqlType {
    SqlType::Array(Box::new(item))
}

/// The parameters that a declared one stands for.
fn variants(declared: P) -> Vec<Param> {
    let types = match declared {
        P::Integer => vec![SqlType::Int2, SqlType::Int4, SqlType::Int8],
        P::Int4 => vec![SqlType::Int4],
        P::Int8 => vec![SqlType::Int8],
        P::Float4 => vec![SqlType::Float4],
        P::Float8 => vec![SqlType::Float8],
        P::Numeric => vec![SqlType::Numeric(None)],
        P::Bool => vec![SqlType::Bool],
        P::Text => vec![SqlType::Text],
        P::Bytea => vec![SqlType::Bytea],
        P::Jsonb => vec![SqlType::Jsonb],
        P::Date => vec![SqlType::Date],
        P::Time => vec![SqlType::Time],
        P::Timestamp => vec![SqlType::Timestamp],
        P::TimestampTz => vec![SqlType::TimestampTz],
        P::Interval => vec![SqlType::Interval],
        P::Uuid => vec![SqlType::Uuid],
        P::TextList => vec![array(SqlType::Text)],
        // A vector is an array, and overloads of vectors stand beside those of arrays.
        P::Vector => vec![],
        P::List => return vec![Param::Array],
        P::Any => return vec![Param::Any],
    };
    types.into_iter().map(Param::Of).collect()
}

impl Table {
    fn build() -> Self {
        let mut table = Self::default();
        table.arrays();
        table.sets();
        table.numbers();
        table.moments();
        table.characters();
        for function in crate::registry().ours() {
            table.declared(function);
        }
        table
    }

    /// The overloads of a function of ours, under each of its names.
    fn declared(&mut self, function: &Arc<ScalarUDF>) {
        let any: &dyn std::any::Any = function.inner().as_ref();
        let Some(ours) = any.downcast_ref::<PgFunction>() else {
            return;
        };
        let names = function.aliases().iter().map(String::as_str);
        for name in names.chain([function.name()]) {
            if self.listed.contains(name) || OF_RECORDS.contains(&name) {
                continue;
            }
            for (params, variadic) in ours.declared() {
                let all = params
                    .iter()
                    .map(|param| variants(*param))
                    .multi_cartesian_product();
                for params in all {
                    let meaning = Meaning::Function(Arc::clone(function));
                    let signature = Signature::new(params, Returns::Made, meaning);
                    self.add(
                        name,
                        if variadic {
                            signature.variadic()
                        } else {
                            signature
                        },
                    );
                }
            }
        }
    }

    fn add(&mut self, name: &str, signature: Signature<Meaning>) {
        self.signatures
            .entry(name.to_owned())
            .or_default()
            .push(signature);
    }

    /// A signature that calls `function`; what it declares is then not looked at.
    fn list(
        &mut self,
        name: &'static str,
        function: &str,
        params: Vec<Param>,
        returns: Returns,
        change: impl FnOnce(Signature<Meaning>) -> Signature<Meaning>,
    ) {
        self.listed.insert(name);
        self.more(name, function, params, returns, change);
    }

    /// A signature beside those that the function declares.
    fn more(
        &mut self,
        name: &str,
        function: &str,
        params: Vec<Param>,
        returns: Returns,
        change: impl FnOnce(Signature<Meaning>) -> Signature<Meaning>,
    ) {
        if let Some(function) = crate::registry().scalar(function) {
            let signature = Signature::new(params, returns, Meaning::Function(function));
            self.add(name, change(signature));
        }
    }

    fn arrays(&mut self) {
        use Param::{Compatible as Item, CompatibleArray as Items};
        let int4 = || Param::Of(SqlType::Int4);
        let as_is = |signature: Signature<Meaning>| signature;
        let blind = |signature: Signature<Meaning>| signature.fit(Fit::Blind);
        let shown = [
            ("array_append", vec![Items, Item]),
            ("array_prepend", vec![Item, Items]),
            ("array_cat", vec![Items, Items]),
        ];
        for (name, params) in shown {
            self.list(name, name, params, Returns::Made, as_is);
        }
        let unseen = [
            ("array_remove", vec![Items, Item], Returns::Same(0)),
            ("array_replace", vec![Items, Item, Item], Returns::Same(0)),
            ("array_position", vec![Items, Item], Returns::Made),
            ("array_position", vec![Items, Item, int4()], Returns::Made),
            ("array_positions", vec![Items, Item], Returns::Made),
            ("array_eq_any", vec![Items, Item], Returns::Made),
        ];
        for (name, params, returns) in unseen {
            self.list(name, name, params, returns, blind);
        }
        let int4s = || Param::Of(array(SqlType::Int4));
        for params in [
            vec![Param::Element, int4s()],
            vec![Param::Element, int4s(), int4s()],
        ] {
            let name = "array_fill";
            self.list(name, name, params, Returns::ArrayOf(0), as_is);
        }
        // Floats and numbers of any digits, and what a value reaches of an array.
        let name = "width_bucket";
        for own in [SqlType::Float8, SqlType::Numeric(None)] {
            let mut params = vec![Param::Of(own); 3];
            params.push(int4());
            self.list(name, name, params, Returns::Made, as_is);
        }
        self.list(name, name, vec![Item, Items], Returns::Made, blind);
    }

    fn sets(&mut self) {
        let set = |signature: Signature<Meaning>| signature.set();
        let of = |sql_type: &SqlType| Param::Of(sql_type.clone());
        self.listed.insert("unnest");
        let unnest = Signature::new(vec![Param::Array], Returns::Same(0), Meaning::Value);
        self.add("unnest", unnest.set());
        let name = "generate_subscripts";
        for more in [vec![], vec![Param::Of(SqlType::Bool)]] {
            let mut params = vec![Param::Array, Param::Of(SqlType::Int4)];
            params.extend(more);
            self.list(name, name, params, Returns::Made, set);
        }
        let name = "generate_series";
        for count in [2, 3] {
            let integers = |signature: Signature<Meaning>| {
                signature.fit(Fit::To(vec![SqlType::Int8; count])).set()
            };
            for own in [SqlType::Int4, SqlType::Int8] {
                let params = vec![Param::Of(own.clone()); count];
                self.list(name, name, params, Returns::Sql(array(own)), integers);
            }
        }
        for own in [SqlType::Timestamp, SqlType::TimestampTz] {
            let params = vec![of(&own), of(&own), Param::Of(SqlType::Interval)];
            self.list(name, "generate_moments", params, Returns::Made, set);
        }
        for (name, function) in [
            ("jsonb_array_elements", "jsonb_array_elements_list"),
            ("json_array_elements", "jsonb_array_elements_list"),
            (
                "jsonb_array_elements_text",
                "jsonb_array_elements_text_list",
            ),
            ("json_array_elements_text", "jsonb_array_elements_text_list"),
            ("jsonb_object_keys", "jsonb_object_keys_list"),
            ("json_object_keys", "jsonb_object_keys_list"),
        ] {
            let params = vec![Param::Of(SqlType::Jsonb)];
            self.list(name, function, params, Returns::Made, set);
        }
        let (document, path) = (|| of(&SqlType::Jsonb), || of(&SqlType::Text));
        let name = "jsonb_path_query";
        for more in [
            vec![],
            vec![document()],
            vec![document(), of(&SqlType::Bool)],
        ] {
            let mut params = vec![document(), path()];
            params.extend(more);
            self.list(name, "jsonb_path_query_list", params, Returns::Made, set);
        }
        for (name, function) in [
            ("string_to_table", "string_to_array"),
            ("regexp_matches", "regexp_matches_list"),
            ("regexp_split_to_table", "regexp_split_to_table_list"),
        ] {
            for count in [2, 3] {
                let params = vec![Param::Of(SqlType::Text); count];
                self.list(name, function, params, Returns::Made, set);
            }
        }
    }

    fn numbers(&mut self) {
        let as_is = |signature: Signature<Meaning>| signature;
        let float8 = || Param::Of(SqlType::Float8);
        for name in OF_FLOATS.iter().copied() {
            self.list(name, name, vec![float8()], Returns::Made, as_is);
        }
        let params = vec![float8(), float8()];
        self.list("atan2", "atan2", params, Returns::Made, as_is);
        for name in ["gen_random_uuid", "pi", "random"] {
            self.list(name, name, vec![], Returns::Made, as_is);
        }
        // Of the same type as its arguments, which the function itself knows of larger ones only.
        let params = vec![Param::Of(SqlType::Int2); 2];
        let small = Returns::Sql(SqlType::Int2);
        let wide = |signature: Signature<Meaning>| {
            signature.fit(Fit::To(vec![SqlType::Int4, SqlType::Int4]))
        };
        self.more("mod", "mod", params, small, wide);
        for own in [SqlType::UInt2, SqlType::UInt4, SqlType::UInt8] {
            let params = vec![Param::Of(own); 2];
            self.more("mod", "pg_modulo", params, Returns::Made, as_is);
        }
        let name = "pg_size_pretty";
        let params = vec![Param::Of(SqlType::Numeric(None))];
        let whole = |signature: Signature<Meaning>| signature.fit(Fit::To(vec![SqlType::Int8]));
        self.more(name, name, params, Returns::Made, whole);
    }

    fn moments(&mut self) {
        let text = || Param::Of(SqlType::Text);
        for name in ["date_part", "datepart"] {
            let params = vec![text(), Param::Of(SqlType::Date)];
            let wide = |signature: Signature<Meaning>| {
                signature.fit(Fit::To(vec![SqlType::Text, SqlType::Timestamp]))
            };
            self.more(name, "date_part", params, Returns::Made, wide);
        }
        for (narrow, wide) in [
            (SqlType::Int4, SqlType::Int8),
            (SqlType::Float4, SqlType::Float8),
        ] {
            let params = vec![Param::Of(narrow), text()];
            let wide =
                |signature: Signature<Meaning>| signature.fit(Fit::To(vec![wide, SqlType::Text]));
            self.more("to_char", "to_char", params, Returns::Made, wide);
        }
    }

    fn characters(&mut self) {
        let as_is = |signature: Signature<Meaning>| signature;
        // It counts the padding.
        let name = "octet_length";
        let params = vec![Param::Of(SqlType::Char(0))];
        self.more(name, name, params, Returns::Made, as_is);
        for name in ["quote_literal", "quote_nullable"] {
            let params = vec![Param::Of(SqlType::Text)];
            self.more(name, name, params, Returns::Made, as_is);
        }
    }
}
