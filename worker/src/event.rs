//! What happens in tasks that a part began: the router hears of it, and tells the part.

use flowstone_proto::message::{RequestError, RequestId};

use crate::Error;
use crate::write::StagedWrite;

/// What happened in tasks that a part began.
#[derive(Debug)]
pub(crate) enum Event {
    /// A write was evaluated.
    Staged {
        write: RequestId,
        result: Result<StagedWrite, RequestError>,
    },
    /// A table was brought back to the commit point, or there is none yet.
    Restored(Result<(), flowstone_storage::Error>),
    /// The keep cannot go on.
    Broken(Error),
}
