//! The aggregates and window functions: names, signatures, and the nodes of DataFusion's plans that each needs.
//!
//! Results are what our implementations compute. Must not know plans: whoever plans gives the nodes their DISTINCT, FILTER, ORDER BY and OVER.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::{AggregateUDF, WindowUDF};
use flowstone_types::SqlType;

use super::signature::{Fit, Param, Returns, Signature};

/// What an aggregate or window function is computed by.
#[derive(Clone, Debug)]
pub(super) enum Collects {
    /// One aggregate.
    Aggregate(Arc<AggregateUDF>),
    /// One window function.
    Window(Arc<WindowUDF>),
    /// `jsonb_agg`: the array of the values, as a document.
    Documents(Arc<AggregateUDF>),
    /// `jsonb_object_agg`: the arrays of the keys, printed, and of the values, put together.
    Members(Arc<AggregateUDF>),
}

type Table = BTreeMap<&'static str, Vec<Signature<Collects>>>;

static AGGREGATES: LazyLock<Table> = LazyLock::new(aggregates);
static WINDOWS: LazyLock<Table> = LazyLock::new(windows);

/// The signatures of an aggregate; none if there is no such one.
pub(super) fn aggregate(name: &str) -> &'static [Signature<Collects>] {
    AGGREGATES.get(name).map(Vec::as_slice).unwrap_or_default()
}

/// The signatures of a window function that is no aggregate; none if there is no such one.
pub(super) fn window(name: &str) -> &'static [Signature<Collects>] {
    WINDOWS.get(name).map(Vec::as_slice).unwrap_or_default()
}

/// The names of all aggregates and of all window functions.
pub(super) fn names() -> (Vec<&'static str>, Vec<&'static str>) {
    (
        AGGREGATES.keys().copied().collect(),
        WINDOWS.keys().copied().collect(),
    )
}

const NUMBERS: &[SqlType] = &[
    SqlType::Int2,
    SqlType::Int4,
    SqlType::Int8,
    SqlType::UInt2,
    SqlType::UInt4,
    SqlType::UInt8,
    SqlType::Float4,
    SqlType::Float8,
    SqlType::Numeric(None),
];

/// Types other than characters and arrays of which there is a least and a largest value.
const ORDERED: &[SqlType] = &[
    SqlType::Int2,
    SqlType::Int4,
    SqlType::Int8,
    SqlType::UInt2,
    SqlType::UInt4,
    SqlType::UInt8,
    SqlType::Float4,
    SqlType::Float8,
    SqlType::Numeric(None),
    SqlType::Bytea,
    SqlType::Jsonb,
    SqlType::Date,
    SqlType::Time,
    SqlType::Timestamp,
    SqlType::TimestampTz,
    SqlType::Interval,
    SqlType::Uuid,
    SqlType::Oid,
    SqlType::MzTimestamp,
];

fn of(sql_type: &SqlType) -> Param {
    Param::Of(sql_type.clone())
}

/// Adds a signature of an aggregate that the registry has under the name `called`.
fn add(
    table: &mut Table,
    name: &'static str,
    called: &str,
    signature: impl FnOnce(Arc<AggregateUDF>) -> Signature<Collects>,
) {
    if let Some(function) = crate::registry().aggregate(called) {
        table.entry(name).or_default().push(signature(function));
    }
}

/// An aggregate that is one node, whose result is what this says.
fn plain(params: Vec<Param>) -> impl FnOnce(Arc<AggregateUDF>) -> Signature<Collects> {
    |function| Signature::new(params, Returns::Made, Collects::Aggregate(function))
}

fn aggregates() -> Table {
    let mut table = Table::new();
    let all = &mut table;
    for params in [vec![], vec![Param::Any]] {
        add(all, "count", "count", plain(params));
    }
    for name in ["sum", "avg"] {
        for own in NUMBERS.iter().chain([&SqlType::Interval]) {
            add(all, name, name, plain(vec![of(own)]));
        }
    }
    for name in ["min", "max"] {
        for own in ORDERED {
            add(all, name, name, plain(vec![of(own)]));
        }
        // Of characters of any other kind.
        add(all, name, name, |function| {
            let text = Returns::Sql(SqlType::Text);
            let params = vec![of(&SqlType::Text)];
            Signature::new(params, text, Collects::Aggregate(function))
        });
        // Found without the padding, which comes back.
        add(all, name, name, |function| {
            let params = vec![of(&SqlType::Char(0))];
            let found = Collects::Aggregate(function);
            Signature::new(params, Returns::AsGiven(0), found).fit(Fit::To(vec![SqlType::Text]))
        });
        add(all, name, name, plain(vec![Param::Array]));
    }
    for (name, called) in [
        ("bool_and", "bool_and"),
        ("bool_or", "bool_or"),
        ("every", "bool_and"),
    ] {
        add(all, name, called, plain(vec![of(&SqlType::Bool)]));
    }
    bits(all);
    statistics(all);
    ordered_sets(all);
    collections(all);
    table
}

fn bits(all: &mut Table) {
    for name in ["bit_and", "bit_or", "bit_xor"] {
        for own in NUMBERS.iter().filter(|own| own.is_integer()) {
            add(all, name, name, plain(vec![of(own)]));
        }
    }
}

/// Of exact numbers exact, of floats in `double precision`, as are all others.
fn statistics(all: &mut Table) {
    for (name, called) in [
        ("stddev", "stddev"),
        ("stddev_samp", "stddev"),
        ("stddev_pop", "stddev_pop"),
        ("variance", "var"),
        ("var_samp", "var"),
        ("var_pop", "var_pop"),
    ] {
        for own in NUMBERS {
            add(all, name, called, |function| {
                let signature = plain(vec![of(own)])(function);
                match own {
                    SqlType::Float4 => signature.fit(Fit::To(vec![SqlType::Float8])),
                    _ => signature,
                }
            });
        }
    }
    let float8 = || Param::Of(SqlType::Float8);
    for name in [
        "corr",
        "covar_pop",
        "covar_samp",
        "regr_avgx",
        "regr_avgy",
        "regr_intercept",
        "regr_r2",
        "regr_slope",
        "regr_sxx",
        "regr_sxy",
        "regr_syy",
    ] {
        add(all, name, name, plain(vec![float8(), float8()]));
    }
    add(all, "regr_count", "regr_count", |function| {
        let params = vec![float8(), float8()];
        let counted = Returns::Sql(SqlType::Int8);
        Signature::new(params, counted, Collects::Aggregate(function))
    });
}

/// Those with WITHIN GROUP: the value in that comes first.
fn ordered_sets(all: &mut Table) {
    let float8 = || Param::Of(SqlType::Float8);
    let many = SqlType::Array(Box::new(SqlType::Float8));
    let text = SqlType::Text;
    let name = "mode";
    add(all, name, name, |function| {
        let params = vec![Param::Element];
        Signature::new(params, Returns::Same(0), Collects::Aggregate(function))
    });
    // Of characters of any other kind than `character`.
    add(all, name, name, |function| {
        let params = vec![of(&text)];
        Signature::new(params, Returns::Same(0), Collects::Aggregate(function))
    });
    // Ordered without the padding, which comes back.
    add(all, name, name, |function| {
        let params = vec![of(&SqlType::Char(0))];
        let found = Collects::Aggregate(function);
        Signature::new(params, Returns::AsGiven(0), found).fit(Fit::To(vec![text.clone()]))
    });
    let name = "percentile_disc";
    for (fraction, result, padded) in [
        (SqlType::Float8, Returns::Same(0), Returns::AsGiven(0)),
        (many.clone(), Returns::ArrayOf(0), Returns::ArrayOfGiven(0)),
    ] {
        for value in [Param::Element, of(&text)] {
            add(all, name, name, |function| {
                let params = vec![value, of(&fraction)];
                Signature::new(params, result.clone(), Collects::Aggregate(function))
            });
        }
        add(all, name, name, |function| {
            let params = vec![of(&SqlType::Char(0)), of(&fraction)];
            Signature::new(params, padded, Collects::Aggregate(function))
                .fit(Fit::To(vec![text.clone(), fraction.clone()]))
        });
    }
    let name = "percentile_cont";
    for own in [SqlType::Float8, SqlType::Interval] {
        add(all, name, name, plain(vec![of(&own), float8()]));
        add(all, name, name, |function| {
            let params = vec![of(&own), of(&many)];
            Signature::new(params, Returns::ArrayOf(0), Collects::Aggregate(function))
        });
    }
}

/// Whether it is an aggregate with WITHIN GROUP.
pub(super) fn is_ordered_set(name: &str) -> bool {
    matches!(name, "mode" | "percentile_disc" | "percentile_cont")
}

fn collections(all: &mut Table) {
    let text = || Param::Of(SqlType::Text);
    add(all, "string_agg", "string_agg", |function| {
        let result = Returns::Sql(SqlType::Text);
        Signature::new(vec![text(), text()], result, Collects::Aggregate(function))
    });
    add(all, "array_agg", "array_agg", |function| {
        let params = vec![Param::Any];
        Signature::new(params, Returns::ArrayOf(0), Collects::Aggregate(function))
    });
    for name in ["jsonb_agg", "json_agg"] {
        add(all, name, "array_agg", |function| {
            let result = Returns::Sql(SqlType::Jsonb);
            Signature::new(vec![Param::Any], result, Collects::Documents(function))
        });
    }
    for name in ["jsonb_object_agg", "json_object_agg"] {
        add(all, name, "array_agg", |function| {
            let params = vec![Param::Any, Param::Any];
            let result = Returns::Sql(SqlType::Jsonb);
            Signature::new(params, result, Collects::Members(function))
        });
    }
}

fn windows() -> Table {
    let mut table = Table::new();
    let mut add = |name: &'static str, params: Vec<Param>, returns: Returns, fit: Fit| {
        if let Some(function) = crate::registry().window(name) {
            let signature = Signature::new(params, returns, Collects::Window(function)).fit(fit);
            table.entry(name).or_default().push(signature);
        }
    };
    let int4 = || Param::Of(SqlType::Int4);
    for name in ["row_number", "rank", "dense_rank"] {
        add(name, vec![], Returns::Sql(SqlType::Int8), Fit::Cast);
    }
    for name in ["percent_rank", "cume_dist"] {
        add(name, vec![], Returns::Made, Fit::Cast);
    }
    add(
        "ntile",
        vec![int4()],
        Returns::Sql(SqlType::Int4),
        Fit::Cast,
    );
    for name in ["lag", "lead"] {
        let value = || Param::Compatible;
        for params in [
            vec![value()],
            vec![value(), int4()],
            vec![value(), int4(), value()],
        ] {
            add(name, params, Returns::Same(0), Fit::Cast);
        }
    }
    for name in ["first_value", "last_value"] {
        add(name, vec![Param::Any], Returns::Same(0), Fit::Cast);
    }
    let params = vec![Param::Any, int4()];
    add("nth_value", params, Returns::Same(0), Fit::Cast);
    table
}
