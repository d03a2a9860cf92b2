//! What happens in tasks that a part began: the router hears of it, and tells the part.

use flowstone_proto::message::{RequestError, RequestId};
use flowstone_types::{Epoch, ObjectId};

use crate::consolidation::Consolidated;
use crate::write::StagedWrite;

/// What happened in tasks that a part began.
#[derive(Debug)]
pub(crate) enum Event {
    /// A write was evaluated.
    Staged {
        write: RequestId,
        result: Result<StagedWrite, RequestError>,
    },
    /// A commit has ended.
    Committed {
        epoch: Epoch,
        result: Result<Vec<(ObjectId, i64)>, flowstone_storage::Error>,
    },
    /// Maintenance has ended.
    Maintained,
    /// Less is left of what waits for a commit.
    Consolidated(Consolidated),
}
