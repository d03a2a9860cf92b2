//! Operators that make a new document of old ones: `||`, `-`, `jsonb_strip_nulls`. What is done at the end of a path is in [`super::at_path`].

use super::{Jsonb, JsonbBuf, JsonbBuilder, JsonbKind};
use crate::TypeError;

fn misplaced(message: &str) -> TypeError {
    TypeError::InvalidParameter(message.to_owned())
}

impl Jsonb<'_> {
    /// `||`: two objects merged, the right one winning; else two arrays joined, anything that is not an array counting as an array of itself.
    ///
    /// # Errors
    /// [`TypeError::InvalidParameter`] if the result is larger than 4 GB.
    pub fn concat(self, right: Jsonb<'_>) -> Result<JsonbBuf, TypeError> {
        let mut builder = JsonbBuilder::new();
        if self.kind() == JsonbKind::Object && right.kind() == JsonbKind::Object {
            builder.begin_object();
            for (key, value) in self.entries() {
                builder.key(key).value(value);
            }
            for (key, value) in right.entries() {
                builder.key(key).value(value);
            }
        } else {
            builder.begin_array();
            append_items(self, &mut builder);
            append_items(right, &mut builder);
        }
        builder.end();
        builder.finish()
    }

    /// `- text`: an object without `key`, or an array without the strings equal to it.
    ///
    /// # Errors
    /// [`TypeError::InvalidParameter`] for a scalar.
    pub fn delete_key(self, key: &str) -> Result<JsonbBuf, TypeError> {
        self.delete_keys(&[key])
    }

    /// `- text[]`: as [`Jsonb::delete_key`] for each key.
    ///
    /// # Errors
    /// [`TypeError::InvalidParameter`] for a scalar.
    pub fn delete_keys(self, keys: &[&str]) -> Result<JsonbBuf, TypeError> {
        let mut builder = JsonbBuilder::new();
        match self.kind() {
            JsonbKind::Object => {
                builder.begin_object();
                for (key, value) in self.entries().filter(|(key, _)| !keys.contains(key)) {
                    builder.key(key).value(value);
                }
            }
            JsonbKind::Array => {
                builder.begin_array();
                let kept =
                    |item: &Jsonb<'_>| !item.as_str().is_some_and(|text| keys.contains(&text));
                for item in self.items().filter(kept) {
                    builder.value(item);
                }
            }
            _ => return Err(misplaced("cannot delete from scalar")),
        }
        builder.end();
        builder.finish()
    }

    /// `- integer`: an array without the item at `index`, negative ones counting from the end.
    ///
    /// # Errors
    /// [`TypeError::InvalidParameter`] for anything but an array.
    pub fn delete_index(self, index: i64) -> Result<JsonbBuf, TypeError> {
        match self.kind() {
            JsonbKind::Array => {}
            JsonbKind::Object => {
                return Err(misplaced("cannot delete from object using integer index"));
            }
            _ => return Err(misplaced("cannot delete from scalar")),
        }
        let position = self.position(index);
        let mut builder = JsonbBuilder::new();
        builder.begin_array();
        for (place, item) in self.items().enumerate() {
            if Some(place) != position {
                builder.value(item);
            }
        }
        builder.end();
        builder.finish()
    }

    fn position(self, index: i64) -> Option<usize> {
        let distance = usize::try_from(index.unsigned_abs()).ok()?;
        if index >= 0 {
            Some(distance)
        } else {
            self.len().checked_sub(distance)
        }
    }

    /// The document without object entries whose value is null, at any depth; nulls in arrays stay.
    ///
    /// # Errors
    /// None for a canonical document.
    pub fn strip_nulls(self) -> Result<JsonbBuf, TypeError> {
        let mut builder = JsonbBuilder::new();
        self.stripped(&mut builder);
        builder.finish()
    }

    fn stripped(self, builder: &mut JsonbBuilder) {
        match self.kind() {
            JsonbKind::Object => {
                builder.begin_object();
                for (key, value) in self.entries().filter(|(_, value)| !value.is_null()) {
                    builder.key(key);
                    value.stripped(builder);
                }
                builder.end();
            }
            JsonbKind::Array => {
                builder.begin_array();
                for item in self.items() {
                    item.stripped(builder);
                }
                builder.end();
            }
            _ => {
                builder.value(self);
            }
        }
    }
}

fn append_items(value: Jsonb<'_>, builder: &mut JsonbBuilder) {
    if value.kind() == JsonbKind::Array {
        for item in value.items() {
            builder.value(item);
        }
    } else {
        builder.value(value);
    }
}
