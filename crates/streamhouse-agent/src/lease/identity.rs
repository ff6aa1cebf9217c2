//! One agent, one id.
//!
//! Two processes under one id would not harm the log: a lease is granted to one of them, with an epoch of its own, and the
//! other can neither renew it nor commit under it. But producers would be sent to the wrong one. So an agent does not start
//! under an id that lives elsewhere, and one that finds its id taken by another ends.

use crate::error::StartError;
use std::time::Duration;
use streamhouse_core::AgentId;
use streamhouse_metadata::{AgentInfo, MetadataStore};
use tokio::time::{Instant, sleep};

/// Looks at a registration that may be dead, in a lease term.
const LOOKS_PER_TERM: u32 = 50;

/// Makes the agent known under its id. What leases an agent of this id had before are given back: it is dead, or its
/// commits are refused from now on.
///
/// An agent whose machine died is still registered, perhaps at another address: it is dead when no heartbeat comes for
/// half a term, since a living one sends three in a term.
///
/// # Errors
///
/// When another agent lives under the id, or the metadata store fails.
pub(super) async fn take_id(
    metadata: &dyn MetadataStore,
    agent: &AgentId,
    address: &str,
    term: Duration,
) -> Result<(), StartError> {
    let mut youngest = None;
    let begun = Instant::now();
    while let Some(other) = registered(&metadata.agents().await?, agent) {
        let age = other.heartbeat_age_ms;
        if other.address == address || age >= (term / 2).as_millis() as i64 || begun.elapsed() >= term {
            break;
        }
        if youngest.is_some_and(|youngest| age < youngest) {
            return Err(StartError::IdInUse { agent: agent.to_string(), address: other.address.clone() });
        }
        youngest = Some(age);
        sleep(term / LOOKS_PER_TERM).await;
    }
    metadata.register_agent(agent, address).await?;
    metadata.release_all_leases(agent).await?;
    Ok(())
}

/// The address of another agent that has taken this one's id, if one has.
pub(super) fn taken_by<'a>(agents: &'a [AgentInfo], agent: &AgentId, address: &str) -> Option<&'a str> {
    registered(agents, agent).map(|info| info.address.as_str()).filter(|other| *other != address)
}

fn registered<'a>(agents: &'a [AgentInfo], agent: &AgentId) -> Option<&'a AgentInfo> {
    agents.iter().find(|info| info.id == *agent)
}
