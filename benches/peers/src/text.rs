//! Text that is cheap to clone.

use std::fmt;
use std::sync::Arc;

use feldera_size_of::{Context, SizeOf};
use rkyv::ser::Serializer;
use rkyv::string::{ArchivedString, StringResolver};
use rkyv::{Archive, Deserialize, Fallible, Serialize};

/// A string that clones share.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Text(Arc<str>);

impl Text {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SizeOf for Text {
    fn size_of_children(&self, context: &mut Context) {
        context.add(self.0.len());
    }
}

impl Archive for Text {
    type Archived = ArchivedString;
    type Resolver = StringResolver;

    unsafe fn resolve(&self, pos: usize, resolver: StringResolver, out: *mut ArchivedString) {
        // SAFETY: the caller's promises about `pos` and `out` are passed on as they are.
        unsafe { ArchivedString::resolve_from_str(&self.0, pos, resolver, out) }
    }
}

impl<S: Serializer + ?Sized> Serialize<S> for Text {
    fn serialize(&self, serializer: &mut S) -> Result<StringResolver, S::Error> {
        ArchivedString::serialize_from_str(&self.0, serializer)
    }
}

impl<D: Fallible + ?Sized> Deserialize<Text, D> for ArchivedString {
    fn deserialize(&self, _: &mut D) -> Result<Text, D::Error> {
        Ok(Text(self.as_str().into()))
    }
}

dbsp::never_none!(Text);
dbsp::never_roaring_filter!(Text);
