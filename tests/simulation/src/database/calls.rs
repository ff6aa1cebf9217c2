//! A client's way to the tables, which can fail.

use super::Tables;
use crate::world::{Fate, Node, State, Way, World, pause};
use std::sync::Arc;
use streamhouse_metadata::*;

/// A client of the database.
#[derive(Clone)]
pub(crate) struct Database {
    pub(super) world: Arc<World>,
    pub(super) node: Node,
}

/// What a call would change, and so whether its outcome can be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

impl Database {
    pub(crate) fn new(world: Arc<World>, node: Node) -> Database {
        Database { world, node }
    }

    /// A transaction. It runs on by itself when its caller has gone, as it does on a server.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: Effect,
        act: impl FnOnce(&mut State, u64) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.carry(name, effect, self.world.fate(self.node, Way::Database), act).await
    }

    pub(super) async fn carry<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: Effect,
        fate: Fate,
        act: impl FnOnce(&mut State, u64) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (world, node) = (Arc::clone(&self.world), self.node);
        let (before, after, known) = match fate {
            Fate::Refused { after } => {
                pause(after).await;
                world.tell(format_args!("{node} {name}: refused"));
                return Err(refusal(&world));
            }
            Fate::Happens { before, after, known } => (before, after, known || effect == Effect::Reads),
        };
        let transaction = tokio::spawn(async move {
            pause(before).await;
            world.step(|state, now_ms| {
                let given = act(state, now_ms);
                match &given {
                    Ok(_) => state.trace.step(format_args!("{node} {name}")),
                    Err(error) => state.trace.step(format_args!("{node} {name}: {error}")),
                }
                given
            })
        });
        let given = transaction.await.expect("a transaction neither panics nor is aborted");
        pause(after).await;
        if known { given } else { Err(MetadataError::Unknown("the simulated connection broke".into())) }
    }

    /// A call that looks at the tables alone.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        look: impl FnOnce(&Tables, u64) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call(name, Effect::Reads, |state, now_ms| look(&state.tables, now_ms)).await
    }
}

/// Nothing was changed: for now, or as long as nobody does something about it.
fn refusal(world: &World) -> MetadataError {
    if world.below(4) == 0 {
        MetadataError::Unavailable("simulated".into())
    } else {
        MetadataError::Busy("simulated".into())
    }
}

/// What a call about groups is answered.
pub(super) fn no_groups() -> MetadataError {
    MetadataError::Invalid("the simulation has no groups; test them with a real store".into())
}
