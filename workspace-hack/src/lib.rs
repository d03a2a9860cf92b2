//! Holds no code: its dependency list unifies the features of external crates (docs/adr/0003).
