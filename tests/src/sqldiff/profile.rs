//! How much of SQL is tried.

use super::types::Type;

/// Which constructs are generated, and what is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Everything: for `make sqldiff`.
    Full,
    /// What the node does as PostgreSQL does today: for the tests.
    Held,
}

impl Profile {
    /// Whether everything is tried.
    #[must_use]
    pub const fn is_full(self) -> bool {
        matches!(self, Self::Full)
    }

    /// The types that columns have.
    #[must_use]
    pub fn types(self) -> Vec<Type> {
        Type::all()
            .filter(|known| self.is_full() || known.is("H"))
            .collect()
    }
}
