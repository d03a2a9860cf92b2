//! Random schemas, queries and changes, in the SQL that the node and PostgreSQL share.
//!
//! Owns the grammar. Must not know the servers.
//!
//! Invariants. What is generated depends on the seed alone. The answer of a query is determined by the rows: a limit has a total order, arithmetic on
//! floats is exact (multiples of a quarter), and an expression that can fail stands only where every plan evaluates it for the same rows.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Smallint,
    Int,
    Bigint,
    Numeric,
    Real,
    Float,
    Bool,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Text,
    Varchar,
    Char,
    Bytea,
    Uuid,
    Jsonb,
    Ints,
    Texts,
}

const TYPES: [Type; 20] = [
    Type::Smallint,
    Type::Int,
    Type::Bigint,
    Type::Numeric,
    Type::Real,
    Type::Float,
    Type::Bool,
    Type::Date,
    Type::Time,
    Type::Timestamp,
    Type::Timestamptz,
    Type::Interval,
    Type::Text,
    Type::Varchar,
    Type::Char,
    Type::Bytea,
    Type::Uuid,
    Type::Jsonb,
    Type::Ints,
    Type::Texts,
];

impl Type {
    const fn sql(self) -> &'static str {
        match self {
            Self::Smallint => "smallint",
            Self::Int => "int",
            Self::Bigint => "bigint",
            Self::Numeric => "numeric(10,2)",
            Self::Real => "real",
            Self::Float => "float8",
            Self::Bool => "bool",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Interval => "interval",
            Self::Text => "text",
            Self::Varchar => "varchar(3)",
            Self::Char => "char(4)",
            Self::Bytea => "bytea",
            Self::Uuid => "uuid",
            Self::Jsonb => "jsonb",
            Self::Ints => "int[]",
            Self::Texts => "text[]",
        }
    }

    const fn is_number(self) -> bool {
        matches!(
            self,
            Self::Smallint | Self::Int | Self::Bigint | Self::Numeric | Self::Real | Self::Float
        )
    }

    /// Whether both servers have the same `min` and `max` of it.
    const fn has_extremes(self) -> bool {
        self.sorts() && !matches!(self, Self::Bool)
    }

    /// Whether the node sorts it, and frames windows by it, as PostgreSQL does. Not yet so: the order of documents, arrays and intervals in sorts, and frames over
    /// bytes. What is equal is told right for all of them.
    const fn sorts(self) -> bool {
        !matches!(
            self,
            Self::Interval | Self::Bytea | Self::Uuid | Self::Jsonb | Self::Ints | Self::Texts
        )
    }

    /// What `sum` of it is.
    const fn sum(self) -> Self {
        match self {
            Self::Smallint | Self::Int => Self::Bigint,
            Self::Bigint | Self::Numeric => Self::Numeric,
            other => other,
        }
    }

    /// What `avg` of it is.
    const fn average(self) -> Self {
        match self {
            Self::Real | Self::Float => Self::Float,
            _ => Self::Numeric,
        }
    }
}

/// A query and the types of its columns, which are named `c0`, `c1`, ….
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) types: Vec<Type>,
}

/// Something an expression can refer to.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    r#type: Type,
}

#[derive(Debug)]
struct Table {
    name: String,
    columns: Vec<Column>,
}

#[derive(Debug)]
pub(crate) struct Generator {
    rng: ChaCha8Rng,
    tables: Vec<Table>,
    aliases: usize,
}

type Scope = [Column];

impl Generator {
    pub(crate) const fn new(rng: ChaCha8Rng) -> Self {
        Self {
            rng,
            tables: Vec::new(),
            aliases: 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn r#type(&mut self) -> Type {
        TYPES[self.below(TYPES.len())]
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("s{}", self.aliases)
    }

    /// `CREATE TABLE` statements.
    pub(crate) fn schema(&mut self) -> Vec<String> {
        let tables = 2 + self.below(3);
        let mut statements = Vec::new();
        for table in 0..tables {
            // Every table has a key of small numbers to join on.
            let mut types = vec![Type::Int];
            for _ in 0..2 + self.below(4) {
                types.push(self.r#type());
            }
            let columns: Vec<Column> = types
                .into_iter()
                .enumerate()
                .map(|(place, r#type)| Column {
                    name: format!("x{place}"),
                    r#type,
                })
                .collect();
            let name = format!("t{table}");
            let list: Vec<String> = columns
                .iter()
                .map(|column| format!("{} {}", column.name, column.r#type.sql()))
                .collect();
            statements.push(format!("CREATE TABLE {name} ({})", list.join(", ")));
            self.tables.push(Table { name, columns });
        }
        statements
    }

    /// The first rows.
    pub(crate) fn fill(&mut self) -> Vec<String> {
        let mut statements = Vec::new();
        for table in 0..self.tables.len() {
            let rows = self.below(14);
            if rows > 0 {
                statements.push(self.insert(table, rows));
            }
        }
        statements
    }

    fn insert(&mut self, table: usize, rows: usize) -> String {
        let types: Vec<Type> = self.tables[table]
            .columns
            .iter()
            .map(|column| column.r#type)
            .collect();
        let values: Vec<String> = (0..rows)
            .map(|_| {
                let row: Vec<String> = types
                    .iter()
                    .map(|r#type| {
                        if self.chance(15) {
                            "NULL".to_owned()
                        } else {
                            self.literal(*r#type)
                        }
                    })
                    .collect();
                format!("({})", row.join(", "))
            })
            .collect();
        format!(
            "INSERT INTO {} VALUES {}",
            self.tables[table].name,
            values.join(", ")
        )
    }

    /// One step: one statement, or several in one transaction.
    pub(crate) fn change(&mut self) -> Vec<String> {
        let table = self.below(self.tables.len());
        let name = self.tables[table].name.clone();
        let scope = self.tables[table].columns.clone();
        match self.below(12) {
            0..=2 => {
                let rows = 1 + self.below(4);
                vec![self.insert(table, rows)]
            }
            3 => {
                let first = self.insert(table, 2);
                let other = self.below(self.tables.len());
                let second = self.insert(other, 1);
                vec![format!("BEGIN; {first}; {second}; COMMIT")]
            }
            4..=6 => {
                let column = scope[self.below(scope.len())].clone();
                let value = self.expr(column.r#type, &scope, 1);
                let condition = self.condition(&scope, 1);
                vec![format!(
                    "UPDATE {name} SET {} = {value} WHERE {condition}",
                    column.name
                )]
            }
            7 => {
                let column = scope[self.below(scope.len())].name.clone();
                vec![format!("UPDATE {name} SET {column} = {column}")]
            }
            8 | 9 => {
                let condition = self.condition(&scope, 1);
                vec![format!("DELETE FROM {name} WHERE {condition}")]
            }
            10 => vec![format!("DELETE FROM {name}")],
            _ => {
                let again = self.insert(table, 5);
                vec![format!("DELETE FROM {name}"), again]
            }
        }
    }

    /// A value that may be stored. No two of a type are equal and written differently, so that it does not matter which one stands for a group.
    fn literal(&mut self, r#type: Type) -> String {
        match r#type {
            Type::Smallint => self
                .pick(&[
                    "0::smallint",
                    "1::smallint",
                    "2::smallint",
                    "'-3'::smallint",
                ])
                .to_owned(),
            Type::Real => self
                .pick(&[
                    "0::real",
                    "1.5::real",
                    "'-2.25'::real",
                    "3::real",
                    "'NaN'::real",
                    "'Infinity'::real",
                ])
                .to_owned(),
            Type::Time => self
                .pick(&[
                    "time '00:00'",
                    "time '10:30'",
                    "time '23:59:59.5'",
                    "time '07:08:09.123456'",
                ])
                .to_owned(),
            Type::Timestamp => self
                .pick(&[
                    "timestamp '2024-02-29 10:30'",
                    "timestamp '2024-03-01 00:00'",
                    "timestamp '1999-12-31 23:59:59.999999'",
                    "timestamp '2026-01-01 00:00:00.5'",
                ])
                .to_owned(),
            Type::Timestamptz => self
                .pick(&[
                    "timestamptz '2024-02-29 10:30+02'",
                    "timestamptz '2024-03-31 01:30+00'",
                    "timestamptz '1999-12-31 23:59:59.999999-05'",
                    "timestamptz '2026-01-01 00:00:00.5+00'",
                ])
                .to_owned(),
            Type::Interval => self
                .pick(&[
                    "interval '0'",
                    "interval '1 day'",
                    "interval '-3 days'",
                    "interval '2 hours'",
                    "interval '1 mon'",
                    "interval '1 year 2 mons 3 days 04:05:06.789'",
                    "interval '-1 mon 5 days'",
                ])
                .to_owned(),
            Type::Varchar => self
                .pick(&[
                    "'a'::varchar(3)",
                    "'ab '::varchar(3)",
                    "''::varchar(3)",
                    "'éé'::varchar(3)",
                    "'abcd'::varchar(3)",
                ])
                .to_owned(),
            Type::Char => self
                .pick(&[
                    "'a'::char(4)",
                    "'ab'::char(4)",
                    "''::char(4)",
                    "' a'::char(4)",
                    "'éé'::char(4)",
                    "'abcd'::char(4)",
                ])
                .to_owned(),
            Type::Bytea => self
                .pick(&[
                    "'\\x'::bytea",
                    "'\\x00'::bytea",
                    "'\\x61ff'::bytea",
                    "'\\xff'::bytea",
                    "'abc'::bytea",
                ])
                .to_owned(),
            Type::Uuid => self
                .pick(&[
                    "uuid '00000000-0000-0000-0000-000000000000'",
                    "uuid '123e4567-e89b-12d3-a456-426614174000'",
                    "uuid 'ffffffff-ffff-ffff-ffff-ffffffffffff'",
                ])
                .to_owned(),
            Type::Jsonb => self
                .pick(&[
                    "jsonb 'null'",
                    "jsonb 'true'",
                    "jsonb '0'",
                    "jsonb '10'",
                    "jsonb '\"a\"'",
                    "jsonb '\"B\"'",
                    "jsonb '[]'",
                    "jsonb '[1, 2]'",
                    "jsonb '[3]'",
                    "jsonb '{}'",
                    "jsonb '{\"a\": 1}'",
                    "jsonb '{\"a\": {\"b\": [null, 1.50]}, \"bc\": \"x\"}'",
                ])
                .to_owned(),
            Type::Ints => self
                .pick(&[
                    "'{}'::int[]",
                    "'{1}'::int[]",
                    "'{1,2}'::int[]",
                    "'{2}'::int[]",
                ])
                .to_owned(),
            Type::Texts => self
                .pick(&[
                    "'{}'::text[]",
                    "'{a}'::text[]",
                    "'{a,B}'::text[]",
                    "'{z,\"\"}'::text[]",
                    "'{\"a b\",\"c,d\"}'::text[]",
                    "'{\"q\\\"x\",\"null\"}'::text[]",
                ])
                .to_owned(),
            Type::Int => self
                .pick(&["0", "1", "2", "3", "4", "5", "-1", "-2"])
                .to_owned(),
            Type::Bigint => self
                .pick(&["0", "1", "2", "3", "7", "-4", "5000000000"])
                .to_owned(),
            Type::Numeric => self
                .pick(&["0", "1.00", "1.5", "2.25", "-3.10", "10.01", "99.99"])
                .to_owned(),
            Type::Float => self
                .pick(&[
                    "0::float8",
                    "'-0'::float8",
                    "1.5::float8",
                    "-2.25::float8",
                    "3::float8",
                    "0.25::float8",
                    "'NaN'::float8",
                    "'Infinity'::float8",
                    "'-Infinity'::float8",
                ])
                .to_owned(),
            Type::Bool => self.pick(&["true", "false"]).to_owned(),
            Type::Date => self
                .pick(&[
                    "date '2024-02-28'",
                    "date '2024-02-29'",
                    "date '2024-03-01'",
                    "date '1999-12-31'",
                    "date '2026-01-01'",
                ])
                .to_owned(),
            Type::Text => self
                .pick(&["'a'", "'b'", "'A'", "''", "'ab'", "' b'", "'é'", "'a%'"])
                .to_owned(),
        }
    }

    fn column(&mut self, r#type: Type, scope: &Scope) -> Option<String> {
        let fitting: Vec<&Column> = scope
            .iter()
            .filter(|column| column.r#type == r#type)
            .collect();
        if fitting.is_empty() {
            return None;
        }
        Some(fitting[self.below(fitting.len())].name.clone())
    }

    fn leaf(&mut self, r#type: Type, scope: &Scope) -> String {
        if self.chance(80) {
            if let Some(column) = self.column(r#type, scope) {
                return column;
            }
            // A column of another type will do when the cast cannot fail.
            if r#type == Type::Bigint
                && let Some(column) = self.column(Type::Int, scope)
            {
                return format!("{column}::bigint");
            }
            if r#type == Type::Float
                && let Some(column) = self.column(Type::Int, scope)
            {
                return format!("{column}::float8");
            }
            if r#type == Type::Text
                && let Some(column) = self.column(Type::Int, scope)
            {
                return format!("{column}::text");
            }
            if r#type == Type::Smallint
                && let Some(column) = self.column(Type::Bool, scope)
            {
                return format!("{column}::int::smallint");
            }
            if r#type == Type::Timestamp
                && let Some(column) = self.column(Type::Date, scope)
            {
                return format!("{column}::timestamp");
            }
            if r#type == Type::Jsonb
                && let Some(column) = self.column(Type::Text, scope)
            {
                return format!("to_jsonb({column})");
            }
        }
        if self.chance(8) {
            return format!("NULL::{}", r#type.sql());
        }
        let literal = self.literal(r#type);
        match r#type {
            Type::Text | Type::Bigint => format!("{literal}::{}", r#type.sql()),
            _ => literal,
        }
    }

    /// An expression that never fails.
    fn expr(&mut self, r#type: Type, scope: &Scope, depth: usize) -> String {
        if depth == 0 || self.chance(40) {
            return self.leaf(r#type, scope);
        }
        let depth = depth - 1;
        match self.below(7) {
            0 => {
                let condition = self.condition(scope, depth);
                let (yes, no) = (
                    self.expr(r#type, scope, depth),
                    self.expr(r#type, scope, depth),
                );
                if self.chance(20) {
                    return format!("CASE WHEN {condition} THEN {yes} END");
                }
                format!("CASE WHEN {condition} THEN {yes} ELSE {no} END")
            }
            1 => {
                let (first, second) = (
                    self.expr(r#type, scope, depth),
                    self.expr(r#type, scope, depth),
                );
                format!("COALESCE({first}, {second})")
            }
            2 => {
                let (first, second) = (self.expr(r#type, scope, depth), self.leaf(r#type, scope));
                format!("NULLIF({first}, {second})")
            }
            3 if r#type.has_extremes() => {
                let (first, second) = (self.expr(r#type, scope, depth), self.leaf(r#type, scope));
                format!("{}({first}, {second})", self.pick(&["greatest", "least"]))
            }
            _ => self.own_expr(r#type, scope, depth),
        }
    }

    /// An operation of the type's own.
    fn own_expr(&mut self, r#type: Type, scope: &Scope, depth: usize) -> String {
        let left = self.expr(r#type, scope, depth);
        match r#type {
            Type::Smallint => match self.below(3) {
                0 => format!("({left} + {})", self.leaf(r#type, scope)),
                1 => format!("(- {left})"),
                _ => format!("abs({left})"),
            },
            Type::Real => match self.below(4) {
                0 => format!("({left} + {})", self.leaf(r#type, scope)),
                1 => format!("({left} * {})", self.pick(&["2::real", "'-0.5'::real"])),
                2 => format!("abs({left})"),
                _ => format!("(- {left})"),
            },
            Type::Time => format!(
                "({left} {} {})",
                self.pick(&["+", "-"]),
                self.pick(&[
                    "interval '1 hour'",
                    "interval '25 hours'",
                    "interval '1 mon 00:00:01'"
                ])
            ),
            Type::Timestamp => match self.below(5) {
                0 | 1 => format!(
                    "({left} {} {})",
                    self.pick(&["+", "-"]),
                    self.leaf(Type::Interval, scope)
                ),
                2 => format!(
                    "date_trunc('{}', {left})",
                    self.pick(&["hour", "day", "month", "week", "year"])
                ),
                3 => format!(
                    "({} + {})",
                    self.leaf(Type::Date, scope),
                    self.leaf(Type::Time, scope)
                ),
                _ => format!(
                    "({} AT TIME ZONE 'UTC')",
                    self.leaf(Type::Timestamptz, scope)
                ),
            },
            Type::Timestamptz => match self.below(4) {
                0 => format!(
                    "({left} {} {})",
                    self.pick(&["+", "-"]),
                    self.leaf(Type::Interval, scope)
                ),
                1 => format!(
                    "date_trunc('{}', {left})",
                    self.pick(&["minute", "day", "quarter"])
                ),
                2 => format!(
                    "({} AT TIME ZONE 'Europe/Berlin')",
                    self.leaf(Type::Timestamp, scope)
                ),
                _ => format!("{}::timestamptz", self.leaf(Type::Timestamp, scope)),
            },
            Type::Interval => match self.below(3) {
                0 => format!("(- {left})"),
                1 => format!("({left} * 2)"),
                _ => left,
            },
            Type::Varchar => match self.below(3) {
                0 => format!("({left} || 'z')::varchar(3)"),
                1 => format!("upper({left})::varchar(3)"),
                _ => format!("{}::varchar(3)", self.leaf(Type::Text, scope)),
            },
            Type::Char => match self.below(3) {
                0 => format!("upper({left})::char(4)"),
                1 => format!("{}::char(4)", self.leaf(Type::Varchar, scope)),
                _ => format!("{}::char(4)", self.leaf(Type::Text, scope)),
            },
            Type::Bytea => match self.below(3) {
                0 => format!("({left} || {})", self.leaf(r#type, scope)),
                1 => format!("({left} || '\\x00'::bytea)"),
                _ => format!("convert_to({}, 'UTF8')", self.leaf(Type::Text, scope)),
            },
            Type::Uuid => left,
            Type::Jsonb => match self.below(5) {
                0 => format!("jsonb_build_array({left}, {})", self.leaf(r#type, scope)),
                1 => format!("({left} -> 'a')"),
                2 => format!("jsonb_build_array({left})"),
                3 => format!("to_jsonb({})", self.leaf(Type::Int, scope)),
                _ => format!("jsonb_build_object('k', {left})"),
            },
            Type::Ints => match self.below(3) {
                0 => format!(
                    "ARRAY[{}, {}]",
                    self.leaf(Type::Int, scope),
                    self.leaf(Type::Int, scope)
                ),
                1 => format!(
                    "array_remove('{{1,2,1}}'::int[], {})",
                    self.leaf(Type::Int, scope)
                ),
                _ => left,
            },
            Type::Texts => match self.below(3) {
                0 => format!(
                    "ARRAY[{}, {}]",
                    self.leaf(Type::Text, scope),
                    self.leaf(Type::Text, scope)
                ),
                1 => format!("({left} || {})", self.leaf(Type::Text, scope)),
                _ => format!("array_cat({left}, {})", self.leaf(r#type, scope)),
            },
            Type::Int => match self.below(9) {
                0 | 1 => format!("({left} + {})", self.leaf(r#type, scope)),
                7 => match self.column(Type::Timestamp, scope) {
                    Some(column) => format!(
                        "extract({} from {column})::int",
                        self.pick(&["day", "hour", "dow", "year"])
                    ),
                    None => left,
                },
                8 => {
                    let (of, function) = match self.below(5) {
                        0 => (Type::Char, "length"),
                        1 => (Type::Bytea, "length"),
                        2 => (Type::Texts, "cardinality"),
                        3 => (Type::Varchar, "char_length"),
                        _ => (Type::Ints, "cardinality"),
                    };
                    format!("{function}({})", self.leaf(of, scope))
                }
                2 => format!("({left} - {})", self.leaf(r#type, scope)),
                3 => format!("({left} * {})", self.pick(&["2", "3", "-1"])),
                4 => format!("({left} / {})", self.pick(&["2", "3", "-2"])),
                5 => format!("({left} % {})", self.pick(&["2", "3", "-2"])),
                _ => match self.column(Type::Text, scope) {
                    Some(text) => format!("length({text})"),
                    None => format!("abs({left})"),
                },
            },
            Type::Bigint => match self.below(5) {
                0 => format!("({left} + {})", self.leaf(Type::Int, scope)),
                1 => format!("({left} - {})", self.leaf(Type::Int, scope)),
                2 => format!("({left} * {})", self.pick(&["2", "3", "-1"])),
                3 => format!("({left} / {})", self.pick(&["2", "3", "-2"])),
                _ => format!("(- {left})"),
            },
            Type::Numeric => match self.below(7) {
                0 => format!("({left} + {})", self.leaf(r#type, scope)),
                1 => format!("({left} - {})", self.leaf(Type::Int, scope)),
                2 => format!("({left} * {})", self.pick(&["2", "1.5", "-1"])),
                3 => format!("round({left}, {})", self.pick(&["0", "1", "2"])),
                4 => format!("abs({left})"),
                5 => format!("({left} / {})", self.pick(&["2", "4", "0.5"])),
                _ => format!("{}({left})", self.pick(&["floor", "ceil", "trunc"])),
            },
            Type::Float => match self.below(5) {
                0 => format!("({left} + {})", self.leaf(r#type, scope)),
                1 => format!("({left} - {})", self.leaf(r#type, scope)),
                2 => format!("({left} * {})", self.pick(&["2", "0.5", "-1"])),
                3 => format!("abs({left})"),
                _ => format!("(- {left})"),
            },
            Type::Bool => self.condition(scope, depth),
            Type::Date => match self.below(2) {
                0 => format!("({left} + {})", self.leaf(Type::Int, scope)),
                _ => format!("({left} - {})", self.pick(&["1", "31", "366"])),
            },
            Type::Text => match self.below(6) {
                0 | 1 => format!("({left} || {})", self.leaf(r#type, scope)),
                2 => format!(
                    "{}({left})",
                    self.pick(&["upper", "lower", "trim", "reverse"])
                ),
                3 => format!("substr({left}, {})", self.pick(&["1, 1", "2", "0, 2"])),
                4 => format!("replace({left}, 'a', 'xy')"),
                _ => {
                    let source = TYPES[self.below(TYPES.len())];
                    match self.column(source, scope) {
                        Some(column) => format!("{column}::text"),
                        None => format!("left({left}, 1)"),
                    }
                }
            },
        }
    }

    /// A boolean expression that never fails.
    fn condition(&mut self, scope: &Scope, depth: usize) -> String {
        if depth > 0 && self.chance(35) {
            let (left, right) = (
                self.condition(scope, depth - 1),
                self.condition(scope, depth - 1),
            );
            return match self.below(5) {
                0 => format!("(NOT {left})"),
                1 | 2 => format!("({left} AND {right})"),
                _ => format!("({left} OR {right})"),
            };
        }
        let inner = depth.saturating_sub(1);
        let r#type = if self.chance(75) && !scope.is_empty() {
            scope[self.below(scope.len())].r#type
        } else {
            self.r#type()
        };
        let left = self.expr(r#type, scope, inner);
        match self.below(11) {
            0 => format!("({left} IS NULL)"),
            1 => format!("({left} IS NOT NULL)"),
            2 => {
                let other = self.leaf(r#type, scope);
                format!(
                    "({left} IS {}DISTINCT FROM {other})",
                    self.pick(&["", "NOT "])
                )
            }
            3 => {
                let list: Vec<String> = (0..1 + self.below(3))
                    .map(|_| self.leaf(r#type, scope))
                    .collect();
                format!(
                    "({left} {}IN ({}))",
                    self.pick(&["", "NOT "]),
                    list.join(", ")
                )
            }
            4 if r#type != Type::Bool => {
                let (low, high) = (self.leaf(r#type, scope), self.leaf(r#type, scope));
                format!(
                    "({left} {}BETWEEN {low} AND {high})",
                    self.pick(&["", "NOT "])
                )
            }
            5 if r#type == Type::Text => {
                format!(
                    "({left} {}LIKE {})",
                    self.pick(&["", "NOT "]),
                    self.pick(&["'a%'", "'%b'", "'_'", "'A%'"])
                )
            }
            5 if r#type == Type::Jsonb => match self.below(3) {
                0 => format!("({left} @> {})", self.leaf(r#type, scope)),
                1 => format!("({left} ? 'a')"),
                _ => format!("(jsonb_typeof({left}) = 'number')"),
            },
            5 if matches!(r#type, Type::Ints | Type::Texts) => match self.below(3) {
                0 => format!("({left} @> {})", self.leaf(r#type, scope)),
                1 => format!("({left} && {})", self.leaf(r#type, scope)),
                _ if r#type == Type::Ints => {
                    format!("({} = ANY ({left}))", self.leaf(Type::Int, scope))
                }
                _ => format!("({} = ANY ({left}))", self.leaf(Type::Text, scope)),
            },
            // Equal to what may be stored, and written in another way.
            5 if r#type == Type::Interval => format!(
                "({left} {} {})",
                self.pick(&["=", "<", ">=", "<>"]),
                self.pick(&[
                    "interval '24 hours'",
                    "interval '30 days'",
                    "interval '120 minutes'",
                    "interval '1 mon -10 days'"
                ])
            ),
            5 if r#type == Type::Char => format!(
                "({left} {} {})",
                self.pick(&["=", "<", ">="]),
                self.pick(&["'a'", "'a  '", "'ab'::char(2)", "''"])
            ),
            5 if r#type == Type::Bool => format!(
                "({left} IS {})",
                self.pick(&["TRUE", "FALSE", "NOT TRUE", "UNKNOWN"])
            ),
            6 if r#type.is_number() => {
                let other = [Type::Int, Type::Bigint, Type::Float][self.below(3)];
                let right = self.leaf(other, scope);
                format!(
                    "({left} {} {right})",
                    self.pick(&["=", "<>", "<", "<=", ">", ">="])
                )
            }
            _ => {
                let right = self.expr(r#type, scope, inner);
                format!(
                    "({left} {} {right})",
                    self.pick(&["=", "=", "<>", "<", "<=", ">", ">="])
                )
            }
        }
    }

    /// An expression that fails for some rows.
    fn failing(&mut self, scope: &Scope) -> Column {
        let int = self.leaf(Type::Int, scope);
        let other = self.leaf(Type::Int, scope);
        match self.below(5) {
            0 => Column {
                name: format!("({int} / {other})"),
                r#type: Type::Int,
            },
            1 => Column {
                name: format!("({int} % NULLIF({other}, 5))"),
                r#type: Type::Int,
            },
            2 => Column {
                name: format!("({int} * 1000000000)"),
                r#type: Type::Int,
            },
            3 => Column {
                name: format!("({int} / {other}::numeric)"),
                r#type: Type::Numeric,
            },
            _ => Column {
                name: format!("({})::int", self.leaf(Type::Float, scope)),
                r#type: Type::Int,
            },
        }
    }

    /// A query for a view.
    pub(crate) fn query(&mut self) -> Query {
        if self.chance(8) {
            return self.failing_query();
        }
        self.nested(2)
    }

    fn failing_query(&mut self) -> Query {
        let (from, scope) = self.table();
        let column = self.failing(&scope);
        let condition = if self.chance(50) {
            format!(" WHERE {}", self.condition(&scope, 1))
        } else {
            String::new()
        };
        match self.below(3) {
            0 => Query {
                sql: format!(
                    "SELECT {} AS c0, {} AS c1 FROM {from}{condition}",
                    scope[0].name, column.name
                ),
                types: vec![Type::Int, column.r#type],
            },
            1 => Query {
                sql: format!(
                    "SELECT {} AS c0, max({}) AS c1 FROM {from}{condition} GROUP BY 1",
                    scope[0].name, column.name
                ),
                types: vec![Type::Int, column.r#type],
            },
            _ => Query {
                sql: format!(
                    "SELECT {} AS c0 FROM {from} WHERE {} > 1",
                    scope[0].name, column.name
                ),
                types: vec![Type::Int],
            },
        }
    }

    /// A base table in FROM.
    fn table(&mut self) -> (String, Vec<Column>) {
        let table = self.below(self.tables.len());
        let alias = self.alias();
        let scope = self.tables[table]
            .columns
            .iter()
            .map(|column| Column {
                name: format!("{alias}.{}", column.name),
                r#type: column.r#type,
            })
            .collect();
        (format!("{} AS {alias}", self.tables[table].name), scope)
    }

    /// A table or a subquery in FROM.
    fn relation(&mut self, depth: usize) -> (String, Vec<Column>) {
        if depth == 0 || self.chance(65) {
            return self.table();
        }
        let query = self.nested(depth - 1);
        let alias = self.alias();
        let scope = query
            .types
            .iter()
            .enumerate()
            .map(|(place, r#type)| Column {
                name: format!("{alias}.c{place}"),
                r#type: *r#type,
            })
            .collect();
        (format!("({}) AS {alias}", query.sql), scope)
    }

    /// `left.a = right.b`, for types both have.
    fn equality(&mut self, left: &Scope, right: &Scope) -> Option<String> {
        for _ in 0..8 {
            let column = &left[self.below(left.len())];
            if let Some(other) = self.column(column.r#type, right) {
                return Some(format!("{} = {other}", column.name));
            }
        }
        let (left, right) = (
            self.column(Type::Int, left)?,
            self.column(Type::Int, right)?,
        );
        Some(format!("{left} = {right}"))
    }

    /// FROM with one to three relations.
    fn from(&mut self, depth: usize) -> (String, Vec<Column>) {
        let (mut sql, mut scope) = self.relation(depth);
        let joins = [0, 0, 0, 1, 1, 1, 2][self.below(7)];
        for _ in 0..joins {
            let (right, right_scope) = self.relation(depth.saturating_sub(1));
            let kind = self.pick(&[
                "JOIN",
                "JOIN",
                "JOIN",
                "LEFT JOIN",
                "LEFT JOIN",
                "RIGHT JOIN",
                "FULL JOIN",
            ]);
            let Some(mut condition) = self.equality(&scope, &right_scope) else {
                continue;
            };
            if self.chance(30)
                && let Some(second) = self.equality(&scope, &right_scope)
            {
                condition = format!("{condition} AND {second}");
            }
            let both: Vec<Column> = scope.iter().chain(&right_scope).cloned().collect();
            // PostgreSQL plans full joins by equality only.
            if kind != "FULL JOIN" && self.chance(25) {
                condition = format!("{condition} AND {}", self.condition(&both, 1));
            }
            sql = format!("{sql} {kind} {right} ON {condition}");
            scope = both;
        }
        (sql, scope)
    }

    fn filter(&mut self, scope: &Scope, depth: usize) -> String {
        if self.chance(45) {
            return String::new();
        }
        let mut condition = self.condition(scope, 2);
        if depth > 0 && self.chance(30) {
            let second = self.subquery_condition(scope);
            condition = match self.below(3) {
                0 => second,
                1 => format!("{condition} AND {second}"),
                _ => format!("{condition} OR {second}"),
            };
        }
        format!(" WHERE {condition}")
    }

    /// EXISTS, IN and comparisons with a scalar subquery, correlated or not.
    fn subquery_condition(&mut self, outer: &Scope) -> String {
        let (from, inner) = self.table();
        match self.below(6) {
            0 | 1 => {
                let Some(equality) = self.equality(outer, &inner) else {
                    return "true".to_owned();
                };
                let more = if self.chance(40) {
                    format!(" AND {}", self.condition(&inner, 1))
                } else {
                    String::new()
                };
                format!(
                    "{}EXISTS (SELECT 1 FROM {from} WHERE {equality}{more})",
                    self.pick(&["", "NOT "])
                )
            }
            2 | 3 => {
                let value = self.leaf(Type::Int, outer);
                let Some(column) = self.column(Type::Int, &inner) else {
                    return "true".to_owned();
                };
                let more = if self.chance(40) {
                    format!(" WHERE {}", self.condition(&inner, 1))
                } else {
                    String::new()
                };
                format!(
                    "{value} {}IN (SELECT {column} FROM {from}{more})",
                    self.pick(&["", "NOT "])
                )
            }
            4 => {
                let value = self.leaf(Type::Int, outer);
                let argument = self.expr(Type::Int, &inner, 1);
                format!(
                    "{value} {} (SELECT {}({argument}) FROM {from})",
                    self.pick(&["<", ">=", "="]),
                    self.pick(&["min", "max", "sum", "count"])
                )
            }
            _ => {
                let value = self.leaf(Type::Int, outer);
                let Some(equality) = self.equality(outer, &inner) else {
                    return "true".to_owned();
                };
                format!(
                    "{value} {} (SELECT {} FROM {from} WHERE {equality})",
                    self.pick(&["<", ">=", "="]),
                    self.pick(&["count(*)", "max(1)", "sum(2)"])
                )
            }
        }
    }

    fn list(expressions: &[String]) -> String {
        let items: Vec<String> = expressions
            .iter()
            .enumerate()
            .map(|(place, expression)| format!("{expression} AS c{place}"))
            .collect();
        items.join(", ")
    }

    fn nested(&mut self, depth: usize) -> Query {
        match self.below(20) {
            0..=3 => self.plain(depth),
            4..=8 => self.aggregate(depth),
            9 => self.distinct(depth),
            10 => self.distinct_on(depth),
            11 | 12 => self.top(depth),
            13..=15 => self.set_operation(depth),
            16 | 17 => self.window(depth),
            18 => self.common_table(depth),
            _ => self.scalar_subquery(depth),
        }
    }

    fn types(&mut self) -> Vec<Type> {
        (0..1 + self.below(3)).map(|_| self.r#type()).collect()
    }

    fn plain(&mut self, depth: usize) -> Query {
        let (from, scope) = self.from(depth);
        let mut types = self.types();
        types.push(scope[self.below(scope.len())].r#type);
        let filter = self.filter(&scope, depth);
        let expressions: Vec<String> = types
            .iter()
            .map(|r#type| self.expr(*r#type, &scope, 2))
            .collect();
        Query {
            sql: format!("SELECT {} FROM {from}{filter}", Self::list(&expressions)),
            types,
        }
    }

    fn of_types(&mut self, types: &[Type], depth: usize) -> String {
        let (from, scope) = self.relation(depth);
        let filter = self.filter(&scope, 0);
        let expressions: Vec<String> = types
            .iter()
            .map(|r#type| self.expr(*r#type, &scope, 1))
            .collect();
        format!("SELECT {} FROM {from}{filter}", Self::list(&expressions))
    }

    fn aggregate_call(&mut self, scope: &Scope) -> Column {
        let r#type = scope[self.below(scope.len())].r#type;
        let argument = self.expr(r#type, scope, 1);
        let distinct = if self.chance(20) { "DISTINCT " } else { "" };
        let (call, result) = match self.below(9) {
            0 => ("count(*)".to_owned(), Type::Bigint),
            1 => (format!("count({distinct}{argument})"), Type::Bigint),
            2 | 3 if r#type.has_extremes() => (
                format!("{}({distinct}{argument})", self.pick(&["min", "max"])),
                r#type,
            ),
            4..=6 if r#type.is_number() => (format!("sum({distinct}{argument})"), r#type.sum()),
            7 if r#type.is_number() => (format!("avg({distinct}{argument})"), r#type.average()),
            _ => {
                let argument = self.condition(scope, 1);
                (
                    format!("{}({argument})", self.pick(&["bool_and", "bool_or"])),
                    Type::Bool,
                )
            }
        };
        let filter = if self.chance(25) {
            format!(" FILTER (WHERE {})", self.condition(scope, 1))
        } else {
            String::new()
        };
        Column {
            name: format!("{call}{filter}"),
            r#type: result,
        }
    }

    fn aggregate(&mut self, depth: usize) -> Query {
        let (from, scope) = self.from(depth);
        let filter = self.filter(&scope, depth);
        let keys: Vec<Column> = (0..self.below(3))
            .map(|_| {
                let r#type = scope[self.below(scope.len())].r#type;
                Column {
                    name: self.expr(r#type, &scope, 1),
                    r#type,
                }
            })
            .collect();
        let calls: Vec<Column> = (0..1 + self.below(3))
            .map(|_| self.aggregate_call(&scope))
            .collect();
        let group = if keys.is_empty() {
            String::new()
        } else {
            let places: Vec<String> = (1..=keys.len()).map(|place| place.to_string()).collect();
            format!(" GROUP BY {}", places.join(", "))
        };
        let having = if self.chance(25) {
            let call = self.aggregate_call(&scope);
            let literal = self.literal(call.r#type);
            format!(
                " HAVING {} {} {literal}",
                call.name,
                self.pick(&["<", ">=", "<>"])
            )
        } else {
            String::new()
        };
        let columns: Vec<Column> = keys.into_iter().chain(calls).collect();
        let expressions: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        Query {
            sql: format!(
                "SELECT {} FROM {from}{filter}{group}{having}",
                Self::list(&expressions)
            ),
            types: columns.iter().map(|column| column.r#type).collect(),
        }
    }

    fn distinct(&mut self, depth: usize) -> Query {
        let mut query = self.plain(depth);
        query.sql = query.sql.replacen("SELECT", "SELECT DISTINCT", 1);
        query
    }

    fn order(&mut self, count: usize, first: usize) -> String {
        let mut places: Vec<usize> = (first..count).collect();
        for at in (1..places.len()).rev() {
            let other = self.below(at + 1);
            places.swap(at, other);
        }
        let keys: Vec<String> = (0..first)
            .chain(places)
            .map(|place| {
                let direction =
                    self.pick(&["", "", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST"]);
                format!("{}{direction}", place + 1)
            })
            .collect();
        keys.join(", ")
    }

    fn distinct_on(&mut self, depth: usize) -> Query {
        let query = self.plain(depth);
        if !query.types.iter().all(|r#type| r#type.sorts()) {
            return query;
        }
        let alias = self.alias();
        let order = self.order(query.types.len(), 1);
        let columns: Vec<String> = (0..query.types.len())
            .map(|place| format!("{alias}.c{place}"))
            .collect();
        Query {
            sql: format!(
                "SELECT DISTINCT ON ({}) {} FROM ({}) AS {alias} ORDER BY {order}",
                columns[0],
                columns.join(", "),
                query.sql
            ),
            types: query.types,
        }
    }

    fn top(&mut self, depth: usize) -> Query {
        let query = if self.chance(60) {
            self.plain(depth)
        } else {
            self.aggregate(depth)
        };
        if !query.types.iter().all(|r#type| r#type.sorts()) {
            return query;
        }
        let order = self.order(query.types.len(), 0);
        let limit = 1 + self.below(4);
        let offset = if self.chance(30) {
            format!(" OFFSET {}", 1 + self.below(2))
        } else {
            String::new()
        };
        Query {
            sql: format!("{} ORDER BY {order} LIMIT {limit}{offset}", query.sql),
            types: query.types,
        }
    }

    fn set_operation(&mut self, depth: usize) -> Query {
        let types = self.types();
        let mut sql = self.of_types(&types, depth.saturating_sub(1));
        for _ in 0..1 + self.below(2) {
            let operation = self.pick(&[
                "UNION",
                "UNION ALL",
                "UNION ALL",
                "EXCEPT",
                "EXCEPT ALL",
                "INTERSECT",
                "INTERSECT ALL",
            ]);
            let right = self.of_types(&types, 0);
            sql = format!("({sql}) {operation} ({right})");
        }
        Query { sql, types }
    }

    fn window(&mut self, depth: usize) -> Query {
        let query = self.plain(depth.min(1));
        if !query.types.iter().all(|r#type| r#type.sorts()) {
            return query;
        }
        let alias = self.alias();
        let scope: Vec<Column> = query
            .types
            .iter()
            .enumerate()
            .map(|(place, r#type)| Column {
                name: format!("{alias}.c{place}"),
                r#type: *r#type,
            })
            .collect();
        let names: Vec<String> = scope.iter().map(|column| column.name.clone()).collect();
        let partition = if self.chance(70) {
            format!("PARTITION BY {}", names[self.below(names.len())])
        } else {
            String::new()
        };
        let total: Vec<String> = names
            .iter()
            .map(|name| format!("{name}{}", self.pick(&["", " DESC", " NULLS FIRST"])))
            .collect();
        let by_one = format!("{partition} ORDER BY {}", names[self.below(names.len())]);
        let total = format!("{partition} ORDER BY {}", total.join(", "));
        let argument = scope[self.below(scope.len())].clone();
        let (call, result) = match self.below(8) {
            0 => (format!("row_number() OVER ({total})"), Type::Bigint),
            1 => (format!("rank() OVER ({by_one})"), Type::Bigint),
            2 => (format!("dense_rank() OVER ({by_one})"), Type::Bigint),
            3 => (
                format!(
                    "{}({}) OVER ({total})",
                    self.pick(&["lag", "lead", "first_value"]),
                    argument.name
                ),
                argument.r#type,
            ),
            4 => (
                format!("count({}) OVER ({partition})", argument.name),
                Type::Bigint,
            ),
            5 => (format!("count(*) OVER ({by_one})"), Type::Bigint),
            6 if matches!(argument.r#type, Type::Int) => (
                format!(
                    "sum({}) OVER ({total} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
                    argument.name
                ),
                Type::Bigint,
            ),
            _ if argument.r#type.has_extremes() => (
                format!(
                    "{}({}) OVER ({by_one})",
                    self.pick(&["min", "max"]),
                    argument.name
                ),
                argument.r#type,
            ),
            _ => (format!("count(*) OVER ({total})"), Type::Bigint),
        };
        let mut types = query.types;
        types.push(result);
        let expressions: Vec<String> = names.into_iter().chain([call]).collect();
        Query {
            sql: format!(
                "SELECT {} FROM ({}) AS {alias}",
                Self::list(&expressions),
                query.sql
            ),
            types,
        }
    }

    fn common_table(&mut self, depth: usize) -> Query {
        let query = self.nested(depth.saturating_sub(1));
        let (cte, left, right) = (self.alias(), self.alias(), self.alias());
        // The first column against one of its own type: itself at least.
        let alike: Vec<usize> = (0..query.types.len())
            .filter(|place| query.types[*place] == query.types[0])
            .collect();
        let key = alike[self.below(alike.len())];
        let mut expressions: Vec<String> = (0..query.types.len())
            .map(|place| format!("{left}.c{place}"))
            .collect();
        expressions.push("count(*)".to_owned());
        let groups: Vec<String> = (1..expressions.len())
            .map(|place| place.to_string())
            .collect();
        let mut types = query.types;
        types.push(Type::Bigint);
        Query {
            sql: format!(
                "WITH {cte} AS ({}) SELECT {} FROM {cte} AS {left} {} {cte} AS {right} ON {left}.c{key} = {right}.c0 GROUP BY {}",
                query.sql,
                Self::list(&expressions),
                self.pick(&["JOIN", "LEFT JOIN"]),
                groups.join(", ")
            ),
            types,
        }
    }

    fn scalar_subquery(&mut self, depth: usize) -> Query {
        let (from, scope) = self.from(depth.min(1));
        let (inner_from, inner) = self.table();
        let filter = self.filter(&scope, 0);
        let correlation = if self.chance(60) {
            self.equality(&scope, &inner)
                .map_or_else(String::new, |equality| format!(" WHERE {equality}"))
        } else {
            String::new()
        };
        let call = self.aggregate_call(&inner);
        let r#type = scope[self.below(scope.len())].r#type;
        let first = self.expr(r#type, &scope, 1);
        Query {
            sql: format!(
                "SELECT {first} AS c0, (SELECT {} FROM {inner_from}{correlation}) AS c1 FROM {from}{filter}",
                call.name
            ),
            types: vec![r#type, call.r#type],
        }
    }
}
