//! Random tables and rows.
//!
//! Invariants. Each table has a column `k` to join on, and some have a second one, `u`; no other name is that of a column of two tables. Every column may hold NULL.

use super::expression::Entry;
use super::profile::Profile;
use super::random::Random;
use super::tree::Tree;
use super::types::{INT4, Mood, TEXT, Type, quoted};

/// The names of columns that no other table has begin with one of these.
const LETTERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// How its type is declared.
    pub declared: String,
    /// Its type.
    pub r#type: Type,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Of what kind its values are.
    pub mood: Mood,
}

/// The tables of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The tables; the last one holds wild values.
    pub tables: Vec<Table>,
}

impl Schema {
    /// Tables of random types.
    pub fn new(profile: Profile, random: &mut Random) -> Self {
        let types = profile.types();
        let calm = 2 + random.below(3);
        let tables = (0..=calm)
            .map(|place| {
                let letter = LETTERS.get(place).copied().unwrap_or("z");
                let mut columns = vec![Column {
                    name: "k".to_owned(),
                    declared: "integer".to_owned(),
                    r#type: INT4,
                }];
                if random.chance(50) {
                    columns.push(Column {
                        name: "u".to_owned(),
                        declared: "text".to_owned(),
                        r#type: TEXT,
                    });
                }
                for number in 0..4 + random.below(5) {
                    let r#type = random.pick(&types).copied().unwrap_or(INT4);
                    let declared = match profile {
                        Profile::Full => random.word(r#type.declared()),
                        Profile::Held => r#type.declared().first().copied().unwrap_or("text"),
                    };
                    columns.push(Column {
                        name: format!("{letter}{number}"),
                        declared: declared.to_owned(),
                        r#type,
                    });
                }
                Table {
                    name: format!("t{place}"),
                    columns,
                    mood: if place == calm {
                        Mood::Wild
                    } else {
                        Mood::Calm
                    },
                }
            })
            .collect();
        Self { tables }
    }

    /// The tables whose values are of a kind.
    #[must_use]
    pub fn of(&self, mood: Mood) -> Vec<&Table> {
        self.tables
            .iter()
            .filter(|table| table.mood == mood)
            .collect()
    }
}

impl Table {
    /// The statement that makes it.
    #[must_use]
    pub fn create(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{} {}", column.name, column.declared))
            .collect();
        format!("CREATE TABLE {} ({})", self.name, columns.join(", "))
    }

    /// Its columns as expressions, under the name that it has in a query.
    #[must_use]
    pub fn scope(&self, alias: &str) -> Vec<Entry> {
        self.columns
            .iter()
            .map(|column| Entry::new(format!("{alias}.{}", column.name), column.r#type))
            .collect()
    }

    /// A row of random values, each as it is written in SQL.
    pub fn row(&self, random: &mut Random) -> Vec<String> {
        self.columns
            .iter()
            .map(|column| {
                // What does not fit the column is tried by casts: a failing INSERT leaves nothing to compare.
                let fits =
                    column.declared == column.r#type.declared().first().copied().unwrap_or("");
                let mood = if fits { self.mood } else { Mood::Calm };
                let value = column.r#type.value(mood, random);
                value.map_or_else(|| "NULL".to_owned(), quoted)
            })
            .collect()
    }

    /// The statement that writes some random rows.
    pub fn insert(&self, rows: usize, random: &mut Random) -> Tree {
        let rows = (0..rows)
            .map(|_| Tree::text(format!("({})", self.row(random).join(", "))))
            .collect();
        Tree::Sequence(vec![
            Tree::text(format!("INSERT INTO {} VALUES ", self.name)),
            Tree::list(rows),
        ])
    }
}
