//! Edits at the end of a path: `jsonb_set`, `jsonb_insert`, `#-`.
//!
//! Owns how a path is followed into a document that is written anew on the way, and what happens where it ends. Called by the functions on `jsonb`.

use super::{Jsonb, JsonbBuf, JsonbBuilder, JsonbKind};
use crate::TypeError;

/// What happens where a path ends.
#[derive(Clone, Copy, Debug)]
pub enum Edit<'v> {
    /// The value there is replaced; if there is none, the new one is added.
    Set(Jsonb<'v>),
    /// The value there is replaced.
    Replace(Jsonb<'v>),
    /// A value is put before the item of an array, or added to an object.
    InsertBefore(Jsonb<'v>),
    /// A value is put behind the item of an array, or added to an object.
    InsertAfter(Jsonb<'v>),
    /// The value there is taken out.
    Delete,
}

/// Why a document cannot be edited at a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A step that is NULL; steps count from 1.
    #[error("path element at position {0} is null")]
    NullStep(usize),
    /// A step into an array that is no subscript.
    #[error("path element at position {0} is not an integer: \"{1}\"")]
    NotAnInteger(usize, String),
    /// An object that has the key which is inserted.
    #[error("cannot replace existing key")]
    ExistingKey,
    /// A document into which no path leads.
    #[error("{0}")]
    Scalar(&'static str),
    /// The document that it becomes cannot be.
    #[error(transparent)]
    Document(#[from] TypeError),
}

impl<'v> Edit<'v> {
    /// The value that is added where there is none.
    const fn added(self) -> Option<Jsonb<'v>> {
        match self {
            Self::Set(value) | Self::InsertBefore(value) | Self::InsertAfter(value) => Some(value),
            Self::Replace(_) | Self::Delete => None,
        }
    }
}

impl Jsonb<'_> {
    /// The document with `edit` made where `path` leads to; unchanged if it leads nowhere.
    ///
    /// A step into an array is a subscript: negative ones count from the end, and those beyond an end are at that end.
    ///
    /// # Errors
    /// [`EditError`]
    pub fn edited_at(self, path: &[Option<&str>], edit: Edit<'_>) -> Result<JsonbBuf, EditError> {
        if self.is_scalar() {
            return Err(EditError::Scalar(match edit {
                Edit::Delete => "cannot delete path in scalar",
                _ => "cannot set path in scalar",
            }));
        }
        if path.is_empty() || self.is_empty() && edit.added().is_none() {
            return Ok(self.to_buf());
        }
        let mut builder = JsonbBuilder::new();
        Place { path, edit, at: 0 }.edit(self, &mut builder)?;
        Ok(builder.finish()?)
    }
}

/// A step of a path on the way.
#[derive(Clone, Copy)]
struct Place<'p> {
    path: &'p [Option<&'p str>],
    edit: Edit<'p>,
    at: usize,
}

impl<'p> Place<'p> {
    const fn position(self) -> usize {
        self.at + 1
    }

    const fn is_last(self) -> bool {
        self.position() == self.path.len()
    }

    const fn next(self) -> Self {
        Self {
            at: self.at + 1,
            ..self
        }
    }

    fn step(self) -> Result<&'p str, EditError> {
        self.path
            .get(self.at)
            .copied()
            .flatten()
            .ok_or(EditError::NullStep(self.position()))
    }

    fn edit(self, value: Jsonb<'_>, builder: &mut JsonbBuilder) -> Result<(), EditError> {
        let step = self.step()?;
        match value.kind() {
            JsonbKind::Object => self.edit_object(step, value, builder),
            JsonbKind::Array => self.edit_array(step, value, builder),
            _ => {
                builder.value(value);
                Ok(())
            }
        }
    }

    fn edit_object(
        self,
        step: &str,
        object: Jsonb<'_>,
        builder: &mut JsonbBuilder,
    ) -> Result<(), EditError> {
        let mut is_found = false;
        builder.begin_object();
        for (key, value) in object.entries() {
            if key != step {
                builder.key(key).value(value);
                continue;
            }
            is_found = true;
            if !self.is_last() {
                builder.key(key);
                self.next().edit(value, builder)?;
                continue;
            }
            match self.edit {
                Edit::Set(new) | Edit::Replace(new) => {
                    builder.key(key).value(new);
                }
                Edit::InsertBefore(_) | Edit::InsertAfter(_) => return Err(EditError::ExistingKey),
                Edit::Delete => {}
            }
        }
        if let (false, true, Some(new)) = (is_found, self.is_last(), self.edit.added()) {
            builder.key(step).value(new);
        }
        builder.end();
        Ok(())
    }

    fn edit_array(
        self,
        step: &str,
        array: Jsonb<'_>,
        builder: &mut JsonbBuilder,
    ) -> Result<(), EditError> {
        let subscript: i32 = step
            .trim_ascii_start()
            .parse()
            .map_err(|_| EditError::NotAnInteger(self.position(), step.to_owned()))?;
        let distance = usize::try_from(subscript.unsigned_abs()).unwrap_or(usize::MAX);
        let index = if subscript >= 0 {
            Some(distance)
        } else {
            array.len().checked_sub(distance)
        };
        let added = self.edit.added().filter(|_| self.is_last());
        builder.begin_array();
        if let (None, Some(new)) = (index, added) {
            builder.value(new);
        }
        for (place, item) in array.items().enumerate() {
            if Some(place) != index {
                builder.value(item);
            } else if self.is_last() {
                self.edit_item(item, builder);
            } else {
                self.next().edit(item, builder)?;
            }
        }
        if let (Some(index), Some(new)) = (index, added)
            && index >= array.len()
        {
            builder.value(new);
        }
        builder.end();
        Ok(())
    }

    fn edit_item(self, item: Jsonb<'_>, builder: &mut JsonbBuilder) {
        match self.edit {
            Edit::Set(new) | Edit::Replace(new) => {
                builder.value(new);
            }
            Edit::InsertBefore(new) => {
                builder.value(new).value(item);
            }
            Edit::InsertAfter(new) => {
                builder.value(item).value(new);
            }
            Edit::Delete => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn edited(document: &str, path: &[&str], edit: Edit<'_>) -> Result<String, EditError> {
        let path: Vec<Option<&str>> = path.iter().copied().map(Some).collect();
        parse(document)?
            .as_jsonb()
            .edited_at(&path, edit)
            .map(|buf| buf.to_string())
    }

    #[test]
    fn a_value_is_set_replaced_and_taken_out_where_a_path_ends() {
        let nine = parse("9").unwrap();
        let nine = nine.as_jsonb();
        for (document, path, edit, expected) in [
            (
                "{\"a\":{\"b\":1}}",
                vec!["a", "b"],
                Edit::Set(nine),
                "{\"a\": {\"b\": 9}}",
            ),
            (
                "{\"a\":1}",
                vec!["b"],
                Edit::Set(nine),
                "{\"a\": 1, \"b\": 9}",
            ),
            ("{\"a\":1}", vec!["b"], Edit::Replace(nine), "{\"a\": 1}"),
            ("{\"a\":1}", vec!["b", "c"], Edit::Set(nine), "{\"a\": 1}"),
            ("{\"a\":1}", vec!["a", "c"], Edit::Set(nine), "{\"a\": 1}"),
            ("[1,2]", vec!["-1"], Edit::Set(nine), "[1, 9]"),
            ("[1,2]", vec!["-5"], Edit::Set(nine), "[9, 1, 2]"),
            ("[1,2]", vec!["5"], Edit::Set(nine), "[1, 2, 9]"),
            ("[1,2]", vec!["5"], Edit::Replace(nine), "[1, 2]"),
            ("[]", vec!["-1"], Edit::Set(nine), "[9]"),
            ("[1,2]", vec!["1"], Edit::InsertBefore(nine), "[1, 9, 2]"),
            ("[1,2]", vec!["1"], Edit::InsertAfter(nine), "[1, 2, 9]"),
            ("{}", vec!["a"], Edit::InsertAfter(nine), "{\"a\": 9}"),
            ("[1,[2,3]]", vec!["1", " 0"], Edit::Delete, "[1, [3]]"),
            ("[1,2]", vec![], Edit::Set(nine), "[1, 2]"),
        ] {
            assert_eq!(
                edited(document, &path, edit).unwrap(),
                expected,
                "{document} {path:?}"
            );
        }
    }

    #[test]
    fn a_path_that_cannot_be_followed_is_an_error() {
        let nine = parse("9").unwrap();
        let set = Edit::Set(nine.as_jsonb());
        let failed = |document, path: &[&str], edit| edited(document, path, edit).unwrap_err();
        assert_eq!(
            failed("[1]", &["1 "], Edit::Delete),
            EditError::NotAnInteger(1, "1 ".to_owned())
        );
        assert_eq!(
            failed("{\"a\":1}", &["a"], Edit::InsertBefore(nine.as_jsonb())),
            EditError::ExistingKey
        );
        assert_eq!(
            failed("1", &["a"], set).to_string(),
            "cannot set path in scalar"
        );
        let document = parse("{\"a\":[1]}").unwrap();
        let path = [Some("a"), None];
        assert_eq!(
            document.as_jsonb().edited_at(&path, set).unwrap_err(),
            EditError::NullStep(2)
        );
    }
}
