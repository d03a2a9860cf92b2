//! The operators: symbols, operands, results, and what each is computed by.
//!
//! They are PostgreSQL's, with those that our own types add. Arithmetic of numbers takes its operands as they are given, because our functions convert them and
//! know how many digits the result has; comparisons of exact numbers leave theirs to DataFusion.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use datafusion::logical_expr::Operator;
use flowstone_types::SqlType;

use super::meaning::{Case, Meaning, Wanted};
use super::signature::{Fit, Param, Returns, Signature};
use crate::numeric::Op;
use crate::operators::{function_name, result_type, symbol};

static BINARY: LazyLock<Table> = LazyLock::new(Table::binary);
static PREFIX: LazyLock<Table> = LazyLock::new(Table::prefix);

/// The signatures of an operator of two operands. `!=` is another name of `<>`.
pub(super) fn binary(symbol: &str) -> &'static [Signature<Meaning>] {
    BINARY.named(if symbol == "!=" { "<>" } else { symbol })
}

/// The signatures of an operator that stands before its operand.
pub(super) fn prefix(symbol: &str) -> &'static [Signature<Meaning>] {
    PREFIX.named(symbol)
}

/// All operators of two operands.
#[cfg(test)]
pub(super) fn all_binary() -> impl Iterator<Item = (&'static str, &'static [Signature<Meaning>])> {
    BINARY
        .0
        .iter()
        .map(|(symbol, all)| (*symbol, all.as_slice()))
}

#[derive(Debug, Default)]
struct Table(BTreeMap<&'static str, Vec<Signature<Meaning>>>);

/// The comparisons. The last two are no operators in PostgreSQL, but resolve as `=` does.
const COMPARISONS: &[(&str, Operator)] = &[
    ("=", Operator::Eq),
    ("<>", Operator::NotEq),
    ("<", Operator::Lt),
    ("<=", Operator::LtEq),
    (">", Operator::Gt),
    (">=", Operator::GtEq),
    ("IS DISTINCT FROM", Operator::IsDistinctFrom),
    ("IS NOT DISTINCT FROM", Operator::IsNotDistinctFrom),
];

/// Any two of them are compared and computed with.
const INTEGERS: &[SqlType] = &[
    SqlType::Int2,
    SqlType::Int4,
    SqlType::Int8,
    SqlType::UInt2,
    SqlType::UInt4,
    SqlType::UInt8,
];

/// Types of which values are compared with values of the same type only.
const COMPARED: &[SqlType] = &[
    SqlType::Bool,
    SqlType::Numeric(None),
    SqlType::Text,
    SqlType::Name,
    SqlType::QuotedChar,
    SqlType::Bytea,
    SqlType::Jsonb,
    SqlType::Time,
    SqlType::Interval,
    SqlType::Uuid,
    SqlType::Oid,
    SqlType::MzTimestamp,
];

const FLOATS: &[SqlType] = &[SqlType::Float4, SqlType::Float8];

/// Each becomes those behind it by itself.
const MOMENTS: &[SqlType] = &[SqlType::Date, SqlType::Timestamp, SqlType::TimestampTz];

/// The function behind a comparison that Arrow does not do as SQL.
fn compared_by(sql_type: &SqlType, op: Operator) -> Option<&'static str> {
    Some(match (sql_type, op) {
        (SqlType::Jsonb, Operator::Lt) => "jsonb_lt",
        (SqlType::Jsonb, Operator::LtEq) => "jsonb_le",
        (SqlType::Jsonb, Operator::Gt) => "jsonb_gt",
        (SqlType::Jsonb, Operator::GtEq) => "jsonb_ge",
        (SqlType::Interval, Operator::Eq) => "interval_eq",
        (SqlType::Interval, Operator::NotEq) => "interval_ne",
        (SqlType::Interval, Operator::Lt) => "interval_lt",
        (SqlType::Interval, Operator::LtEq) => "interval_le",
        (SqlType::Interval, Operator::Gt) => "interval_gt",
        (SqlType::Interval, Operator::GtEq) => "interval_ge",
        _ => return None,
    })
}

fn two(left: &SqlType, right: &SqlType) -> Vec<Param> {
    vec![Param::Of(left.clone()), Param::Of(right.clone())]
}

impl Table {
    fn named(&self, symbol: &str) -> &[Signature<Meaning>] {
        self.0.get(symbol).map(Vec::as_slice).unwrap_or_default()
    }

    fn binary() -> Self {
        let mut table = Self::default();
        for (symbol, op) in [("AND", Operator::And), ("OR", Operator::Or)] {
            let both = two(&SqlType::Bool, &SqlType::Bool);
            let meaning = Meaning::Comparison(op);
            table.add(symbol, Signature::new(both, Returns::Made, meaning));
        }
        table.comparisons();
        table.arithmetic();
        table.arithmetic_of_moments();
        table.bits();
        table.characters();
        table.arrays();
        table.documents();
        table
    }

    fn prefix() -> Self {
        let mut table = Self::default();
        let boolean = vec![Param::Of(SqlType::Bool)];
        table.add("NOT", Signature::new(boolean, Returns::Made, Meaning::Not));
        let numbers = [
            SqlType::Int2,
            SqlType::Int4,
            SqlType::Int8,
            SqlType::Float4,
            SqlType::Float8,
            SqlType::Numeric(None),
        ];
        for own in &numbers {
            let operand = || vec![Param::Of(own.clone())];
            let same = Signature::new(operand(), Returns::Same(0), Meaning::Value);
            table.add("+", same);
            table.call("-", "pg_negate", operand());
            table.call("@", "abs", operand());
        }
        table.call("-", "pg_negate", vec![Param::Of(SqlType::Interval)]);
        table.call("|/", "sqrt", vec![Param::Of(SqlType::Float8)]);
        table.call("||/", "cbrt", vec![Param::Of(SqlType::Float8)]);
        for own in INTEGERS.get(..3).unwrap_or_default() {
            let operand = vec![Param::Of(own.clone())];
            table.add(
                "~",
                Signature::new(operand, Returns::Made, Meaning::Complement),
            );
        }
        table
    }

    fn add(&mut self, symbol: &'static str, signature: Signature<Meaning>) {
        self.0.entry(symbol).or_default().push(signature);
    }

    /// An operator that is the function `name`.
    fn call(&mut self, symbol: &'static str, name: &str, params: Vec<Param>) {
        self.call_fitted(symbol, name, params, Fit::Cast);
    }

    fn call_fitted(&mut self, symbol: &'static str, name: &str, params: Vec<Param>, fit: Fit) {
        if let Some(function) = crate::registry().scalar(name) {
            let meaning = Meaning::Function(function);
            self.add(
                symbol,
                Signature::new(params, Returns::Made, meaning).fit(fit),
            );
        }
    }

    /// An operator that is the function `name` of its right operand and its left one.
    fn call_swapped(&mut self, symbol: &'static str, name: &str, params: Vec<Param>, fit: Fit) {
        if let Some(function) = crate::registry().scalar(name) {
            let meaning = Meaning::Swapped(function);
            self.add(
                symbol,
                Signature::new(params, Returns::Made, meaning).fit(fit),
            );
        }
    }

    fn comparisons(&mut self) {
        for (symbol, op) in COMPARISONS.iter().copied() {
            let plain = |params: Vec<Param>, fit: Fit| {
                Signature::new(params, Returns::Made, Meaning::Comparison(op)).fit(fit)
            };
            for family in [INTEGERS, FLOATS] {
                for left in family {
                    for right in family {
                        self.add(symbol, plain(two(left, right), Fit::Compare));
                    }
                }
            }
            for (rank, left) in MOMENTS.iter().enumerate() {
                for (other, right) in MOMENTS.iter().enumerate() {
                    let common = if rank > other { left } else { right };
                    let fit = Fit::To(vec![common.clone(), common.clone()]);
                    self.add(symbol, plain(two(left, right), fit));
                }
            }
            for own in COMPARED {
                match compared_by(own, op) {
                    Some(name) => self.call(symbol, name, two(own, own)),
                    None => self.add(symbol, plain(two(own, own), Fit::Compare)),
                }
            }
            let padded = SqlType::Char(0);
            self.add(symbol, plain(two(&padded, &padded), Fit::Padded));
            self.add(symbol, plain(vec![Param::Array, Param::Array], Fit::Blind));
        }
    }

    fn arithmetic(&mut self) {
        let numeric = SqlType::Numeric(None);
        let numbers: Vec<&SqlType> = INTEGERS.iter().chain(FLOATS).chain([&numeric]).collect();
        for op in [Op::Add, Op::Subtract, Op::Multiply, Op::Divide, Op::Modulo] {
            for left in &numbers {
                for right in &numbers {
                    let both_integers = left.is_integer() && right.is_integer();
                    let both_floats = FLOATS.contains(left) && FLOATS.contains(right);
                    if (left != right && !both_integers && !both_floats)
                        || result_type(op, &left.to_arrow(), &right.to_arrow()).is_err()
                    {
                        continue;
                    }
                    let name = function_name(op);
                    self.call_fitted(symbol(op), name, two(left, right), Fit::AsGiven);
                }
            }
        }
        self.call("^", "power", two(&SqlType::Float8, &SqlType::Float8));
        self.call("^", "power", two(&numeric, &numeric));
    }

    fn arithmetic_of_moments(&mut self) {
        use SqlType::{Date, Float8, Int4, Interval, Time, Timestamp, TimestampTz};
        let sums = [
            (Date, Int4),
            (Date, Interval),
            (Date, Time),
            (Time, Interval),
            (Timestamp, Interval),
            (TimestampTz, Interval),
        ];
        for (left, right) in &sums {
            self.call("+", function_name(Op::Add), two(left, right));
            self.call("+", function_name(Op::Add), two(right, left));
        }
        self.call("+", function_name(Op::Add), two(&Interval, &Interval));
        for (left, right) in [
            (Date, Date),
            (Date, Int4),
            (Date, Interval),
            (Time, Time),
            (Time, Interval),
            (Timestamp, Timestamp),
            (Timestamp, Interval),
            (TimestampTz, TimestampTz),
            (TimestampTz, Interval),
            (Interval, Interval),
        ] {
            self.call("-", function_name(Op::Subtract), two(&left, &right));
        }
        self.call("*", function_name(Op::Multiply), two(&Interval, &Float8));
        self.call("*", function_name(Op::Multiply), two(&Float8, &Interval));
        self.call("/", function_name(Op::Divide), two(&Interval, &Float8));
    }

    fn bits(&mut self) {
        for own in INTEGERS {
            for (symbol, op) in [
                ("&", Operator::BitwiseAnd),
                ("|", Operator::BitwiseOr),
                ("#", Operator::BitwiseXor),
            ] {
                let meaning = Meaning::Bits(op);
                self.add(
                    symbol,
                    Signature::new(two(own, own), Returns::Made, meaning),
                );
            }
            for (symbol, op) in [
                ("<<", Operator::BitwiseShiftLeft),
                (">>", Operator::BitwiseShiftRight),
            ] {
                let meaning = Meaning::Shift(op);
                let params = two(own, &SqlType::Int4);
                self.add(symbol, Signature::new(params, Returns::Made, meaning));
            }
        }
    }

    fn characters(&mut self) {
        use SqlType::{Bytea, Char, Name, Text};
        self.call("||", "text_concat", two(&Text, &Text));
        self.call("||", "bytea_concat", two(&Bytea, &Bytea));
        let with_text = [
            vec![Param::Of(Text), Param::NonArray],
            vec![Param::NonArray, Param::Of(Text)],
        ];
        for params in with_text {
            let meaning = Meaning::Concatenation;
            self.add("||", Signature::new(params, Returns::Made, meaning));
        }
        self.call("^@", "starts_with", two(&Text, &Text));
        let patterns = [
            ("~~", Meaning::Like(Wanted::Match, Case::Sensitive)),
            ("!~~", Meaning::Like(Wanted::NoMatch, Case::Sensitive)),
            ("~~*", Meaning::Like(Wanted::Match, Case::Insensitive)),
            ("!~~*", Meaning::Like(Wanted::NoMatch, Case::Insensitive)),
            ("~", Meaning::Regex(Wanted::Match, Case::Sensitive)),
            ("!~", Meaning::Regex(Wanted::NoMatch, Case::Sensitive)),
            ("~*", Meaning::Regex(Wanted::Match, Case::Insensitive)),
            ("!~*", Meaning::Regex(Wanted::NoMatch, Case::Insensitive)),
        ];
        for (symbol, meaning) in patterns {
            // What is matched is seen with its padding.
            for matched in [Text, Name, Char(0)] {
                let params = two(&matched, &Text);
                self.add(
                    symbol,
                    Signature::new(params, Returns::Made, meaning.clone()),
                );
            }
        }
    }

    fn arrays(&mut self) {
        use Param::{Compatible as Item, CompatibleArray as Items};
        self.call("||", "array_cat", vec![Items, Items]);
        self.call("||", "array_append", vec![Items, Item]);
        self.call("||", "array_prepend", vec![Item, Items]);
        let both = || vec![Param::Array, Param::Array];
        self.call_fitted("@>", "array_holds_all", both(), Fit::Blind);
        self.call_swapped("<@", "array_holds_all", both(), Fit::Blind);
        self.call_fitted("&&", "array_holds_any", both(), Fit::Blind);
    }

    fn documents(&mut self) {
        use SqlType::{Int8, Jsonb, Text};
        let texts = SqlType::Array(Box::new(Text));
        for (symbol, name, right) in [
            ("->", "jsonb_get", &Text),
            ("->", "jsonb_get", &Int8),
            ("->>", "jsonb_get_text", &Text),
            ("->>", "jsonb_get_text", &Int8),
            ("#>", "jsonb_get_path", &texts),
            ("#>>", "jsonb_get_path_text", &texts),
            ("#-", "jsonb_delete_path", &texts),
            ("-", "jsonb_delete", &Text),
            ("-", "jsonb_delete", &Int8),
            ("-", "jsonb_delete", &texts),
            ("@>", "jsonb_contains", &Jsonb),
            ("<@", "jsonb_contained", &Jsonb),
            ("?", "jsonb_exists", &Text),
            ("?|", "jsonb_exists_any", &texts),
            ("?&", "jsonb_exists_all", &texts),
            ("||", "jsonb_concat", &Jsonb),
            ("@?", "jsonb_path_exists_opr", &Text),
            ("@@", "jsonb_path_match_opr", &Text),
        ] {
            self.call(symbol, name, two(&Jsonb, right));
        }
    }
}
