//! What is made in a lane, and the copies it needs.
//!
//! Owns what an act becomes when it is ready. Must not know when that is. Called by [`Lanes::go_on`].

use std::sync::Arc;

use flowstone_dataflow::Snapshot;
use flowstone_types::{Epoch, ObjectId};

use super::task::{Content, Copied, Copying, Work};
use super::{Act, Base, Import, Lane, LaneId, Lanes, Object, Place, Source};

impl Lanes {
    /// Something is made in a lane as soon as all it reads has come to `epoch`. [`Lanes::go_on`] follows.
    pub(in crate::compute) fn create(
        &mut self,
        lane: LaneId,
        id: ObjectId,
        object: Object,
        epoch: Epoch,
    ) {
        self.places.insert(id, lane);
        self.make(lane, id, object, Source::Stored, epoch);
    }

    pub(super) fn make(
        &mut self,
        number: LaneId,
        id: ObjectId,
        object: Object,
        content: Source,
        epoch: Epoch,
    ) {
        let inputs = object.plan().collections();
        let from: Vec<(ObjectId, Place)> = inputs
            .iter()
            .map(|input| (*input, self.place_of(*input)))
            .collect();
        let Some(lane) = self.lanes.get_mut(&number) else {
            return;
        };
        let mut imports = Vec::new();
        if !lane.parked {
            for (input, from) in from {
                if !lane.objects.contains_key(&input) && !lane.imports.contains_key(&input) {
                    let (since, taken) = (epoch, false);
                    lane.imports.insert(input, Import { from, since, taken });
                    imports.push(input);
                }
            }
        }
        lane.objects.insert(id, object);
        lane.acts.push_back(Act {
            epoch,
            id,
            imports,
            content,
        });
    }

    /// Sends a lane its next act, which is ready: all that it reads has come to its epoch.
    pub(super) fn send_act(&mut self, number: LaneId, base: Base<'_>) {
        let Some(act) = self
            .lanes
            .get_mut(&number)
            .and_then(|lane| lane.acts.pop_front())
        else {
            return;
        };
        let Act {
            epoch,
            id,
            imports,
            content,
        } = act;
        for import in imports {
            let from = self
                .lanes
                .get(&number)
                .and_then(|lane| lane.imports.get(&import))
                .map_or(Place::Base, |import| import.from);
            let copying = self.copy(import, from, epoch, base);
            if let Some(lane) = self.lanes.get_mut(&number) {
                if let Some(import) = lane.imports.get_mut(&import) {
                    import.taken = true;
                }
                lane.send(Work::Import(copying, epoch));
            }
        }
        let is_view =
            |lane: &Lane| matches!(lane.objects.get(&id), Some(Object::Dataflow(_, Some(_))));
        let content = match content {
            Source::Lane(old) if self.lanes.get(&number).is_some_and(is_view) => {
                let at = match self.lanes.get(&old) {
                    Some(old) if old.parked => old.frontier,
                    _ => epoch,
                };
                Content::Copied(self.copy(id, Place::Lane(old), at, base))
            }
            Source::Lane(_) | Source::Stored => Content::Stored,
        };
        let Some(lane) = self.lanes.get(&number) else {
            return;
        };
        match lane.objects.get(&id) {
            Some(Object::Dataflow(_, Some(collection))) if lane.parked => {
                lane.send(Work::Keep(collection.clone(), content, lane.frontier));
            }
            Some(Object::Dataflow(description, collection)) if !lane.parked => {
                let collection = collection.clone().map(|collection| (collection, content));
                lane.send(Work::Create(description.clone(), collection, epoch));
            }
            Some(Object::Subscription(plan)) if !lane.parked => {
                lane.send(Work::Subscribe(id, plan.clone(), epoch));
            }
            _ => {}
        }
    }

    /// What a collection is at an epoch that where it is has come to. Asked for now, in the order of what happens there; who needs it waits for it.
    pub(super) fn copy(&self, id: ObjectId, from: Place, epoch: Epoch, base: Base<'_>) -> Copying {
        let jobs = match from {
            Place::Base => Some(base.pool.jobs()),
            Place::Lane(lane) => self.lanes.get(&lane).map(|lane| lane.pool.jobs()),
        };
        let asked = jobs.map(|jobs| {
            jobs.read_each(move |_, shard| Ok((shard.snapshot(id, epoch)?, shard.key_of(id))))
        });
        Copying::new(async move {
            let Some(asked) = asked else { return Ok(None) };
            let (mut rows, mut key) = (Vec::new(), None);
            for shard in asked?.all().await? {
                match shard {
                    Ok((snapshot, of_shard)) => {
                        rows.push(snapshot);
                        key = of_shard;
                    }
                    Err(flowstone_dataflow::Error::UnknownCollection(_)) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
            let schema = rows.first().map(|rows: &Snapshot| Arc::clone(&rows.schema));
            Ok(schema.map(|schema| Copied {
                id,
                schema,
                key,
                rows,
            }))
        })
    }
}
