//! Where something stands in the text of a statement.
//!
//! Owns the way from the lines and columns of the syntax tree to characters. Must not know what stands there.

use sqlparser::tokenizer::Location;

/// The character position, from 1, of a line and column of `text`; `None` if the location or the text is unknown.
pub(crate) fn position_of(text: &str, line: u64, column: u64) -> Option<usize> {
    if text.is_empty() || line == 0 {
        return None;
    }
    crate::parse::position_of(text, Location { line, column })
}
